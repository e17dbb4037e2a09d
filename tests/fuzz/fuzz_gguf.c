/* Any bytes as a GGUF file: opened from memory, and everything in it read. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../model/test_source_read.h"
#include "model/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *s;
    struct err err = {0};
    char path[64];
    int fd = memfd_create("model.gguf", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (source_open(&s, path, &err) < 0) {
        check_sentence(&err);
    } else {
        (void)read_everything(s);
        source_close(s);
    }
    close(fd);
    return 0;
}
