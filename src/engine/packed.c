#include "engine/packed.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "gemmad/log.h"
#include "graph/weights.h"

struct packed {
    char *path;
    struct weight_store *store;
    struct packed_key key;
    struct file_map map;
    bool mapped;              /* map is open */
    struct packed_file *file; /* what the store uses; NULL: nothing */
    bool foreign;             /* what is at path is not ours to replace */
    int64_t checked_ns;
    pthread_t thread; /* writes, while is_writing */
    bool is_writing;
    atomic_bool stop;
};

static double mib(size_t bytes)
{
    return (double)bytes / 1048576;
}

/* Whoever can write the file can choose the answers, so it has to be ours or root's. */
static int check_owner(const struct stat *st, struct err *err)
{
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return err_set(err, GD_EAUTH, "it belongs to another user");
    if (st->st_mode & S_IWOTH)
        return err_set(err, GD_EAUTH, "everybody may write it");
    return 0;
}

static int open_file(struct packed *p, struct pool *pool, struct err *err)
{
    int r = file_map(&p->map, p->path, "it", err);

    p->mapped = r == 0;
    p->foreign = r < 0 ? r != GD_ENOENT : !packed_file_is_one(p->map.data, p->map.size);
    if (r == 0)
        r = check_owner(&p->map.st, err);
    if (r == 0 && p->map.data) /* large pages where the file system has them */
        madvise((void *)p->map.data, p->map.size, MADV_HUGEPAGE);
    if (r == 0)
        r = packed_file_open(&p->file, p->map.data, p->map.size, &p->key, pool, err);
    if (r == 0)
        r = file_unchanged(&p->map, "it", err);
    return r;
}

static void drop_file(struct packed *p)
{
    packed_file_close(p->file);
    p->file = NULL;
    if (p->mapped)
        file_unmap(&p->map);
    p->mapped = false;
}

struct packed *packed_open(const char *path, struct weight_store *store, struct pool *pool)
{
    struct packed *p = xcalloc(1, sizeof(*p));
    int64_t start = clock_ns();
    struct err err;
    int r;

    p->path = xstrdup(path);
    p->store = store;
    p->key = weight_store_key(store);
    r = open_file(p, pool, &err);
    if (r == GD_ENOENT)
        log_info("there are no packed weights yet file=%s", path);
    else if (r < 0)
        log_warn("packed weights are not used, the model is packed anew: %s file=%s%s", err.msg,
            path, p->foreign ? " (which stays as it is)" : "");
    if (r < 0)
        drop_file(p);
    p->checked_ns = clock_ns() - start;
    weight_store_use(store, p->file);
    return p;
}

/* ---- writing ---- */

static void *write_main(void *arg)
{
    struct packed *p = arg;
    int64_t start = clock_ns();
    struct err err;
    int r = weight_store_save(p->store, &p->key, p->path, &p->stop, &err);

    if (r < 0)
        log_warn("packed weights were not written: %s file=%s", err.msg, p->path);
    else
        log_info("wrote the packed weights for the next start mib=%.1f ms=%.0f file=%s",
            mib(weight_store_bytes(p->store)), (double)(clock_ns() - start) / 1e6, p->path);
    return NULL;
}

static void start_writing(struct packed *p)
{
    sigset_t all, before;

    sigfillset(&all); /* signals belong to the loop thread */
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    p->is_writing = pthread_create(&p->thread, NULL, write_main, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (p->is_writing)
        pthread_setname_np(p->thread, "gemmad-packed");
    else
        log_warn("packed weights were not written: no thread can be started file=%s", p->path);
}

void packed_keep(struct packed *p)
{
    int n, n_packed;

    weight_store_count(p->store, &n, &n_packed);
    if (p->file)
        log_info("mapped packed weights matrices=%d of=%d mib=%.1f ms=%.1f file=%s", n - n_packed,
            n, mib(p->map.size), (double)p->checked_ns / 1e6, p->path);
    if (n_packed > 0 && !p->foreign)
        start_writing(p);
}

void packed_close(struct packed *p)
{
    if (!p)
        return;
    if (p->is_writing) {
        atomic_store(&p->stop, true);
        pthread_join(p->thread, NULL);
    }
    drop_file(p);
    free(p->path);
    free(p);
}
