/* file.h - whole files: mapped to be read, and replaced so that no reader ever meets half of one.
 *
 * Nothing here is shared between threads. Sentences call a file by the `name` that the caller gives
 * (borrowed while it is used), or leave it out. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "gemmad/err.h"

/* A regular file, read-only. Its bytes are the file's own: who writes into it changes them, who
 * shortens it makes touching them raise SIGBUS. */
struct file_map {
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
    int fd;
    struct stat st; /* as of opening */
};

/* GD_ENOENT when it is not there, else GD_EIO. A FIFO or a device is refused, not waited for. */
int file_map(struct file_map *out, const char *path, const char *name, struct err *err);
void file_unmap(struct file_map *m);
/* GD_EIO when the file has been written to since it was mapped. */
int file_unchanged(const struct file_map *m, const char *name, struct err *err);

/* A new version of a file, written beside it as PATH.tmp and renamed over it when it is complete
 * and on the disk. One process at a time: the others get GD_EBUSY. What a killed process left under
 * that name is removed by the next one. Zeros are a closed draft. */
struct file_draft {
    char *path, *temp;
    int fd; /* valid while path is set */
};

/* mode: less what the umask takes away. bytes: the size to be, reserved where the file system can,
 * so that a full disk shows at once. */
int file_draft_open(
    struct file_draft *d, const char *path, mode_t mode, size_t bytes, struct err *err);
int file_draft_write(
    struct file_draft *d, uint64_t offset, const void *p, size_t n, struct err *err);
int file_draft_commit(struct file_draft *d, struct err *err); /* closes it, also when it fails */
void file_draft_abandon(struct file_draft *d);                /* a closed one is fine */

#endif
