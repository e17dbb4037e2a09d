/* Any bytes as the files of a Hugging Face folder. The first byte picks which one they are:
 * config.json, the weights, or the index; the other files are good ones. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../model/test_hf_build.h"
#include "../model/test_source_read.h"
#include "model/source.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void remove_folder(void)
{
    (void)hf_folder_remove(NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (hf_folder_create(NULL) < 0)
        abort();
    return atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const files[] = {
        "config.json", "model.safetensors", "model.safetensors.index.json"};
    static int last = -1;
    struct source *s;
    struct err err = {0};
    int kind;

    if (size == 0)
        return 0;
    kind = data[0] % 3;
    if (kind != last)
        hf_folder_write(&(struct hf_folder){0});
    last = kind;
    if (kind == 2)
        hf_file_remove("model.safetensors");
    hf_file_write(files[kind], data + 1, size - 1);
    if (source_open(&s, hf_folder_path(), &err) < 0) {
        check_sentence(&err);
    } else {
        (void)read_everything(s);
        source_close(s);
    }
    return 0;
}
