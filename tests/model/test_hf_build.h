/* test_hf_build.h - a tiny Hugging Face folder (a Gemma 3 of two layers), good or spoiled. */
#ifndef TEST_HF_BUILD_H
#define TEST_HF_BUILD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct hf_folder {
    const char *prefix;                       /* of tensor names; NULL = "model." */
    const char *extra;                        /* one more tensor, (4, 8) F32 */
    const char *find, *replace;               /* in config.json: the first occurrence */
    const char *header_find, *header_replace; /* in the header of model.safetensors */
};

/* For cmocka's group: makes a temporary folder, and removes it. */
int hf_folder_create(void **state);
int hf_folder_remove(void **state);
const char *hf_folder_path(void);

/* config.json and model.safetensors; anything else there goes. */
void hf_folder_write(const struct hf_folder *f);
/* Their contents, to be spoiled: caller frees. */
void hf_config_build(struct buf *b, const struct hf_folder *f);
void hf_weights_build(struct buf *b, const struct hf_folder *f);
void hf_file_write(const char *name, const void *bytes, size_t n);
void hf_file_remove(const char *name);

#endif
