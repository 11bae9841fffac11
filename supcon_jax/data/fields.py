"""The names and shapes of what a batch holds: b rows of this process, v views, all numpy.

image     u8[b, v, size, size, 3]   RGB; turned to floats on the device
text      i32[b, v, words]          word ids, 0 behind text_len (absent without a vocabulary)
text_len  i32[b, v]                 at least 1
caption   str[b, v]                 only in evaluation, with text: the caption as it was written
label     i32[b, v]                 class of each view's record; -1 everywhere in an unlabelled set
          or f32[b, v, c]           multi-hot
index     i32[b, v]                 record of each view; -1 in a row that is not valid
valid     f32[b]                    only in evaluation: 0 for a row that fills up the last batch or stands in for an
                                    unusable record. Its pixels and words are some good record's; count it nowhere.
probe_image  u8[b, 1, size, size, 3]  only in training with data.probe: pictures of the labelled set that a probe reads,
probe_label  i32[b, 1]                and their classes; they have nothing to do with the row that they stand in

v = 1 without a partner, else 2: the record and its partner.
"""

IMAGE = "image"
TEXT = "text"
TEXT_LEN = "text_len"
SAID = "caption"
LABEL = "label"
INDEX = "index"
VALID = "valid"
PROBE_IMAGE = "probe_image"
PROBE_LABEL = "probe_label"
