# Read by the other scripts: flags into variables, checks, and every command either run or, with --dry_run, printed.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=
main=() # what follows "--": flags of supcon_jax.main

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# quote WORD...: the words as a shell reads them back, separated by spaces
quote() {
  local word out=
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'${word//\'/\'\\\'\'}'" ;;
    esac
    out+=${out:+ }$word
  done
  printf '%s' "$out"
}

# go COMMAND...: prints the command, or runs it
go() {
  if [[ $dry_run ]]; then
    quote "$@"
    echo
  else
    "$@"
  fi
}

# read_flags "KNOWN NAMES" ARG...: sets a variable for each --name=value
read_flags() {
  local known=" $1 " word key
  shift
  while (($#)); do
    word=$1
    shift
    case $word in
      --) main=("$@") && return ;;
      --dry_run) dry_run=yes ;;
      --*=*)
        key=${word%%=*}
        key=${key#--}
        [[ $known == *" $key "* ]] ||
          fail "$word is not a flag of $(basename "$0"); flags:$known--dry_run, and those of main after --"
        printf -v "$key" '%s' "${word#*=}"
        ;;
      *) fail "$word: flags are --flag=value; those of main follow --" ;;
    esac
  done
}

# need NAME...: flags that a verb cannot do without
need() {
  local key
  for key in "$@"; do
    [[ ${!key:-} ]] || fail "--$key=... is missing: $(basename "$0") $verb needs it"
  done
}

# client NAME WHERE: a program that must be installed
client() {
  [[ $dry_run ]] || command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# training PYTHON [FLAG...]: the command line of a training, quoted
training() {
  ((${#main[@]})) || fail "flags of main are missing: $(basename "$0") $verb ... -- --config=FILE --workdir=DIR"
  quote "$1" -m supcon_jax.main "${main[@]}" "${@:2}"
}

# workdir_of: the --workdir among the flags of main
workdir_of() {
  local word
  for word in ${main[@]+"${main[@]}"}; do
    [[ $word == --workdir=?* ]] && printf '%s' "${word#*=}" && return
  done
  fail "--workdir=DIR is missing after --: where the results of $verb lie"
}

# pack FILE: the committed tree
pack() {
  [[ $dry_run ]] || git -C "$here" diff --quiet HEAD || echo "note: changes that are not committed stay here" >&2
  go git -C "$here" archive --format=tar.gz --output="$1" HEAD
}

# detached COMMAND FOLDER: shell text that starts a command in a folder and leaves it running, unless it runs already
detached() {
  printf '%s' "cd $(quote "$2") && if [ -e run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; then echo runs already;" \
    " else nohup setsid $1 >>run.log 2>&1 </dev/null & echo \$! >run.pid; fi"
}

# verbs "KNOWN VERBS" [ARG...]: sets verb to the first argument
verbs() {
  verb=${2:-}
  [[ $verb && " $1 " == *" $verb "* ]] ||
    fail "usage: $(basename "$0") VERB --flag=value ... [--dry_run] [-- flags of main]; verbs: $1"
}
