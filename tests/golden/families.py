"""Which test judges which family of reference numbers; a family that stands nowhere makes the run fail."""

MODULES = {"attngan_d64", "attngan_d128", "attngan_d256", "attngan_g", "attngan_rnn_gru", "attngan_rnn_lstm",
           "byol_mlp_head",
           "damsm_cnn_inception_w16", "dfgan_d_magp", "dfgan_g", "dmgan_d64", "dmgan_d128", "dmgan_d256", "dmgan_g",
           "fid_inception_w16", "galip_d_magp", "galip_g", "hf_bert_tiny", "hf_clip_tiny", "hf_vit_tiny",
           "openai_clip_rn", "openai_clip_vit", "simsiam_resnet18_w16", "ssagan_d_magp", "ssagan_g", "supcon_resnet18_w16",
           "supcon_resnet50_w16", "tv_resnet18_w8", "tv_resnet50_w16", "tv_vit_tiny"}

# those whose gradients take ten seconds or more: plain runs compare their outputs alone
DEEP = {"attngan_d256", "attngan_g", "damsm_cnn_inception_w16", "dfgan_d_magp", "dmgan_g", "fid_inception_w16",
        "galip_d_magp", "galip_g", "openai_clip_rn", "ssagan_d_magp", "ssagan_g", "supcon_resnet18_w16",
        "tv_resnet18_w8", "tv_resnet50_w16"}
QUICK = {"attngan_g", "tv_resnet18_w8"}  # of these, in plain runs
# gradients of the trunks of tv_resnet50_w16 and supcon_resnet18_w16 under other heads; slow runs see the second one's outputs
BY_HAND = {"supcon_resnet50_w16", "simsiam_resnet18_w16"}
LIGHT = MODULES - DEEP - BY_HAND
# no convolution: of the others' outputs in float32 plain runs see those of DEEP
TOKENS = {"attngan_rnn_gru", "attngan_rnn_lstm", "byol_mlp_head", "hf_bert_tiny", "hf_clip_tiny", "hf_vit_tiny",
          "openai_clip_vit", "tv_vit_tiny"}

# judged by test_losses.py, test_pairs.py, test_unimodal.py, test_steps.py, test_text_to_image.py and test_metrics.py
LOSSES = {"barlow_vicreg", "byol_simsiam", "clip_infonce", "clip_siglip_sharded", "cmc_nce", "coca_distill", "damsm",
          "decoupled_debiased_hard", "gan_losses", "gradcache", "image_text_matching", "lars_steps", "mclea_icl_ial",
          "milnce", "moco", "multilabel_supcon", "ntxent", "pcl_protonce", "pml_supcon_ntxent", "siglip_sigmoid",
          "supcon", "swav", "t2i_cl_ntxent", "time_series"}
METRICS = {"alignment_uniformity", "fid", "inception_score", "kid", "knn", "prdc", "resize", "retrieval"}

# networks of systems that this library does not have yet
LATER = {"flava_tiny", "l3_audio_mel128_w8", "mclea_gat", "mclea_gcn", "milnce_s3d_w8_s2d",
         "mult_causal", "mult_nomask", "ts2vec_encoder", "vse_gpo"}

KNOWN = MODULES | LOSSES | METRICS | LATER
