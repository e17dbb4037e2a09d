#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

/* O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing for a regular file. */
int file_map(struct file_map *out, const char *path, const char *name, struct err *err)
{
    struct file_map m = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    void *p = NULL;
    int r = 0;

    if (m.fd < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? GD_ENOENT : GD_EIO,
            "%s cannot be opened: %s.", name, strerror(errno));
    if (fstat(m.fd, &m.st) < 0)
        r = err_set(err, GD_EIO, "%s cannot be examined: %s.", name, strerror(errno));
    else if (!S_ISREG(m.st.st_mode))
        r = err_set(err, GD_EIO, "%s is not a regular file.", name);
    m.size = r == 0 ? (size_t)m.st.st_size : 0;
    if (m.size > 0)
        p = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, m.fd, 0);
    if (p == MAP_FAILED)
        r = err_set(err, GD_EIO, "%s cannot be mapped: %s.", name, strerror(errno));
    if (r < 0) {
        close(m.fd);
        return r;
    }
    m.data = p;
    *out = m;
    return 0;
}

void file_unmap(struct file_map *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    close(m->fd);
}

int file_unchanged(const struct file_map *m, const char *name, struct err *err)
{
    struct stat st;

    if (fstat(m->fd, &st) < 0)
        return err_set(err, GD_EIO, "%s cannot be examined: %s.", name, strerror(errno));
    if (st.st_size != m->st.st_size || st.st_mtim.tv_sec != m->st.st_mtim.tv_sec ||
        st.st_mtim.tv_nsec != m->st.st_mtim.tv_nsec)
        return err_set(err, GD_EIO, "%s was changed while it was being read.", name);
    return 0;
}

/* ---- drafts ----
 *
 * The name PATH.tmp belongs to whoever holds the lock on the file that it names; without the lock
 * nobody writes, renames or removes it. */

static bool is_named(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Negative, or 0 with the name in our hands. A file that lost its name meanwhile was finished, or
 * taken for a dead one's, by another. */
static int lock(int fd, const char *temp, struct err *err)
{
    bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;

    if (!locked && errno != EWOULDBLOCK)
        return err_set(err, GD_EIO, "it cannot be locked: %s", strerror(errno));
    if (!locked || !is_named(fd, temp))
        return err_set(err, GD_EBUSY, "another process is writing it");
    return 0;
}

/* Removes what a process left that died; busy when it lives. */
static int remove_left(const char *temp, struct err *err)
{
    int fd = open(temp, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int r = fd < 0 ? 0 : lock(fd, temp, err);

    if (r == 0 && (fd < 0 || unlink(temp) < 0))
        r = err_set(err, GD_EIO, "%.160s is in the way: %s", temp, strerror(errno));
    if (fd >= 0)
        close(fd);
    return r;
}

/* Disks say here that they are full, other file systems that they cannot tell. */
static int reserve(int fd, size_t bytes, struct err *err)
{
    if (fallocate(fd, 0, 0, (off_t)bytes) < 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
        return err_set(
            err, GD_EIO, "its %.1f MiB do not fit: %s", (double)bytes / 1048576, strerror(errno));
    return 0;
}

int file_draft_open(
    struct file_draft *d, const char *path, mode_t mode, size_t bytes, struct err *err)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    size_t n = strlen(path);
    char *temp = xcalloc(n + sizeof(".tmp"), 1);
    int fd, r = 0;

    memcpy(temp, path, n);
    memcpy(temp + n, ".tmp", sizeof(".tmp"));
    fd = open(temp, flags, mode);
    if (fd < 0 && errno == EEXIST) {
        r = remove_left(temp, err);
        fd = r < 0 ? -1 : open(temp, flags, mode);
    }
    if (r == 0 && fd < 0)
        r = err_set(err, GD_EIO, "%.160s cannot be made: %s", temp, strerror(errno));
    if (r == 0)
        r = lock(fd, temp, err);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        free(temp);
        return r;
    }
    *d = (struct file_draft){.path = xstrdup(path), .temp = temp, .fd = fd};
    r = reserve(fd, bytes, err);
    if (r < 0)
        file_draft_abandon(d);
    return r;
}

int file_draft_write(
    struct file_draft *d, uint64_t offset, const void *p, size_t n, struct err *err)
{
    while (n > 0) {
        ssize_t done = pwrite(d->fd, p, n, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_set(err, GD_EIO, "it cannot be written: %s",
                done < 0 ? strerror(errno) : "nothing was taken");
        p = (const char *)p + done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

static void close_draft(struct file_draft *d)
{
    close(d->fd); /* and lets the lock go, so the name must be gone before */
    free(d->path);
    free(d->temp);
    *d = (struct file_draft){0};
}

int file_draft_commit(struct file_draft *d, struct err *err)
{
    int r = 0;

    if (fsync(d->fd) < 0)
        r = err_set(err, GD_EIO, "it cannot be brought to the disk: %s", strerror(errno));
    else if (rename(d->temp, d->path) < 0)
        r = err_set(err, GD_EIO, "it cannot be put in its place: %s", strerror(errno));
    if (r < 0)
        unlink(d->temp);
    close_draft(d);
    return r;
}

void file_draft_abandon(struct file_draft *d)
{
    if (!d->path)
        return;
    unlink(d->temp);
    close_draft(d);
}
