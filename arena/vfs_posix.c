/* vfs_posix.c - The vfs contract kept with the system calls of Linux.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One of the doors: file system calls appear here and nowhere else, so poison.h is not included.
 *
 * Files are opened without following a link in the last component and must be regular: somebody who
 * can write into the directory cannot make the library write elsewhere or wait for a pipe.
 * Directory paths are the user's own and may lead through links.
 */
#include "arena/vfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/vfs_map.h"

#define IO_BYTES_MAX 0x7ffff000u /* what one read or write of Linux moves at most */
#define LOCK_TRIES   100

struct loam_file {
    int fd;
    bool is_lock;
    struct vfs_view view; /* size 0: reads are calls */
    pid_t pid; /* of the process that took the lock */
    dev_t dev; /* with ino: the locked file */
    ino_t ino;
    dev_t dir_dev; /* likewise the directory it was locked in */
    ino_t dir_ino;
    struct loam_file *next; /* in held_locks */
};

/* Locks held by this process. The kernel refuses a second opener too, except on file systems that
 * do not really lock; within the process the answer must not depend on that. */
static pthread_mutex_t held_mutex = PTHREAD_MUTEX_INITIALIZER; /* protects held_locks */
static struct loam_file *held_locks;

/* Calls that a signal may interrupt are made again. */
#define RETRY(result, call)                                                                        \
    do {                                                                                           \
        (result) = (call);                                                                         \
    } while ((result) < 0 && errno == EINTR)

static int result_of(int rc)
{
    return rc < 0 ? -errno : 0;
}

/* A limit on file sizes (RLIMIT_FSIZE) comes with a signal that kills by default. It is for whoever
 * writes without looking at results; here the error is enough, so it is held back and taken away. */
struct size_limit {
    bool set;
    sigset_t signal, old;
};

static void size_limit_begin(struct size_limit *l)
{
    struct rlimit r;
    l->set = getrlimit(RLIMIT_FSIZE, &r) == 0 && r.rlim_cur != RLIM_INFINITY;
    if (l->set) {
        sigemptyset(&l->signal);
        sigaddset(&l->signal, SIGXFSZ);
        pthread_sigmask(SIG_BLOCK, &l->signal, &l->old);
    }
}

/* rc: the result of the call, which is returned. */
static int64_t size_limit_end(struct size_limit *l, int64_t rc)
{
    if (l->set) {
        const struct timespec now = {0};
        if (rc == -EFBIG && sigismember(&l->old, SIGXFSZ) == 0) {
            (void)sigtimedwait(&l->signal, NULL, &now); /* none, when the program ignores it */
        }
        pthread_sigmask(SIG_SETMASK, &l->old, NULL);
    }
    return rc;
}

/* An offset and length that the kernel's signed 64-bit offsets can hold. */
static bool range_ok(uint64_t off, uint64_t len)
{
    return off <= INT64_MAX && len <= (uint64_t)INT64_MAX - off;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int access_mode(uint32_t flags)
{
    switch (flags & (LOAM_VFS_READ | LOAM_VFS_WRITE)) {
    case LOAM_VFS_READ | LOAM_VFS_WRITE:
        return O_RDWR;
    case LOAM_VFS_WRITE:
        return O_WRONLY;
    default:
        return O_RDONLY;
    }
}

/* The descriptor itself or another of the same file: never the number of a standard stream, which the program
 * may have been started without. What anybody prints there must not go into a file. */
static int above_streams(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO) {
        return fd;
    }
    int other = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int error = errno;
    close(fd);
    errno = error;
    return other;
}

/* A descriptor of a regular file, or -errno. O_NONBLOCK keeps the open of a planted pipe or device
 * from waiting; on a regular file it means nothing. */
static int open_regular(const char *path, int mode, struct stat *st)
{
    int fd;
    RETRY(fd, open(path, mode | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600));
    fd = above_streams(fd);
    if (fd < 0) {
        return errno == ENXIO ? -EINVAL : -errno; /* ENXIO: a pipe without a reader */
    }
    int rc = result_of(fstat(fd, st));
    if (rc == 0 && !S_ISREG(st->st_mode)) {
        rc = S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL;
    }
    if (rc != 0) {
        close(fd);
        return rc;
    }
    return fd;
}

static int file_new(int fd, struct loam_file **f)
{
    struct loam_file *file = alloc_zero(alloc_global(), MEM_VFS, sizeof *file);
    if (file == NULL) {
        close(fd);
        return -ENOMEM;
    }
    file->fd = fd;
    *f = file;
    return 0;
}

/* st: of the file as it was found. */
static int open_file(const char *path, uint32_t flags, loam_file **f, struct stat *st)
{
    int mode = access_mode(flags);
    if ((flags & LOAM_VFS_TRUNCATE) && !(flags & LOAM_VFS_WRITE)) {
        return -EINVAL; /* before a file is made that cannot be cut */
    }
    if (flags & LOAM_VFS_NEW) {
        mode |= O_CREAT | O_EXCL;
    } else if (flags & LOAM_VFS_CREATE) {
        mode |= O_CREAT;
    }
    int fd = open_regular(path, mode, st);
    if (fd < 0) {
        return fd;
    }
    if ((flags & LOAM_VFS_WRITE) && st->st_nlink > 1) {
        close(fd);
        return -EMLINK;
    }
    /* Cut only now: O_TRUNC would act before the type is known. */
    if ((flags & LOAM_VFS_TRUNCATE) && st->st_size != 0) {
        int cut;
        RETRY(cut, ftruncate(fd, 0));
        if (cut < 0) {
            int rc = -errno;
            close(fd);
            return rc;
        }
    }
    return file_new(fd, f);
}

static int os_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    (void)ctx;
    struct stat st;
    return open_file(path, flags, f, &st);
}

static int os_open_mapped(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    (void)ctx;
    struct stat st;
    int rc = open_file(path, flags, f, &st);
    if (rc == 0 && (flags & LOAM_VFS_WRITE) == 0) {
        vfs_view_begin(&(*f)->view, (*f)->fd, (uint64_t)st.st_size);
    }
    return rc;
}

static void held_remove_locked(const struct loam_file *f)
{
    for (struct loam_file **at = &held_locks; *at != NULL; at = &(*at)->next) {
        if (*at == f) {
            *at = f->next;
            return;
        }
    }
}

/* A child forked meanwhile has the descriptor, too, and would keep the lock for as long as it lives; what it
 * closes itself is its parent's to keep. Where this fails the close lets go, if nobody was forked. */
static void let_go_of_lock(const struct loam_file *f)
{
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    if (f->pid == getpid()) {
        (void)fcntl(f->fd, F_OFD_SETLK, &l);
    }
}

static int os_close(void *ctx, loam_file *f)
{
    (void)ctx;
    int rc;
    vfs_view_end(&f->view);
    if (f->is_lock) {
        /* Both keepers of the lock let go in one step: nobody finds it half free. */
        pthread_mutex_lock(&held_mutex);
        held_remove_locked(f);
        let_go_of_lock(f);
        rc = result_of(close(f->fd));
        pthread_mutex_unlock(&held_mutex);
    } else {
        rc = result_of(close(f->fd));
    }
    alloc_put(alloc_global(), MEM_VFS, f, sizeof *f);
    return rc == -EINTR ? 0 : rc; /* Linux has closed the descriptor all the same */
}

/* ---- moving bytes ---------------------------------------------------------------------------- */

static int64_t os_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    if (!range_ok(off, n)) {
        return -EINVAL;
    }
    if (vfs_view_copy(&f->view, buf, n, off)) {
        return (int64_t)n;
    }
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < IO_BYTES_MAX ? n - done : IO_BYTES_MAX;
        ssize_t got;
        RETRY(got, pread(f->fd, (char *)buf + done, want, (off_t)(off + done)));
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return (int64_t)done;
}

/* flags: of pwritev2. */
static int64_t write_at(loam_file *f, const void *buf, size_t n, uint64_t off, int flags)
{
    if (!range_ok(off, n)) {
        return -EFBIG;
    }
    if (n == 0) {
        return 0;
    }
    ssize_t put;
    struct size_limit limit;
    size_limit_begin(&limit);
    struct iovec part = {(void *)(uintptr_t)buf, n < IO_BYTES_MAX ? n : IO_BYTES_MAX};
    RETRY(put, flags == 0 ? pwrite(f->fd, part.iov_base, part.iov_len, (off_t)off)
                          : pwritev2(f->fd, &part, 1, (off_t)off, flags));
    put = size_limit_end(&limit, put < 0 ? -errno : put);
    return put != 0 ? put : -EIO; /* a caller that goes on with the rest would never end */
}

static int64_t os_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    return write_at(f, buf, n, off, 0);
}

static int os_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    (void)ctx;
    int rc;
    RETRY(rc, data_only ? fdatasync(f->fd) : fsync(f->fd));
    return result_of(rc);
}

/* A kernel or file system that has no such write says so in one of several ways. */
static bool cannot_write_durably(int64_t put)
{
    return put == -EOPNOTSUPP || put == -ENOSYS || put == -EINVAL;
}

static int64_t os_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    int64_t put = -EOPNOTSUPP;
#if defined(RWF_DSYNC)
    put = write_at(f, buf, n, off, RWF_DSYNC);
#endif
    if (!cannot_write_durably(put)) {
        return put;
    }
    put = os_write(ctx, f, buf, n, off);
    int rc = put >= 0 ? os_sync(ctx, f, 1) : 0;
    return rc < 0 ? rc : put;
}

static int os_truncate(void *ctx, loam_file *f, uint64_t size)
{
    (void)ctx;
    if (!range_ok(size, 0)) {
        return -EFBIG;
    }
    int rc;
    struct size_limit limit;
    size_limit_begin(&limit);
    RETRY(rc, ftruncate(f->fd, (off_t)size));
    return (int)size_limit_end(&limit, result_of(rc));
}

static int os_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    (void)ctx;
    if (!range_ok(off, len)) {
        return -EFBIG;
    }
    if (len == 0) {
        return 0;
    }
    int rc;
    struct size_limit limit;
    size_limit_begin(&limit);
    RETRY(rc, fallocate(f->fd, 0, (off_t)off, (off_t)len));
    rc = (int)size_limit_end(&limit, result_of(rc));
    return rc == -ENOSYS ? -EOPNOTSUPP : rc;
}

static int os_size(void *ctx, loam_file *f, uint64_t *size)
{
    (void)ctx;
    struct stat st;
    if (fstat(f->fd, &st) < 0) {
        return -errno;
    }
    *size = (uint64_t)st.st_size;
    return 0;
}

/* ---- maps and advice ------------------------------------------------------------------------- */

static int os_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    uint64_t size;
    int rc = os_size(ctx, f, &size);
    if (rc != 0) {
        return rc;
    }
    if (off % 4096 != 0 || len % 4096 != 0 || len == 0 || off > size || len > size - off) {
        return -EINVAL;
    }
    return vfs_map_to_write(f->fd, off, len, p);
}

static int os_unmap(void *ctx, void *p, size_t len)
{
    (void)ctx;
    return result_of(munmap(p, len));
}

/* Only a call that waits takes note of the file's errors: a later sync still reports them. */
static int start_writeback(const loam_file *f, uint64_t off, uint64_t len)
{
#if defined(__linux__)
    return result_of(sync_file_range(f->fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE));
#else
    (void)f, (void)off, (void)len;
    return 0;
#endif
}

static int os_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    (void)ctx;
    static const int words[] = {
        [LOAM_ADVISE_SEQUENTIAL] = POSIX_FADV_SEQUENTIAL,
        [LOAM_ADVISE_RANDOM] = POSIX_FADV_RANDOM,
        [LOAM_ADVISE_WILLNEED] = POSIX_FADV_WILLNEED,
        [LOAM_ADVISE_DONTNEED] = POSIX_FADV_DONTNEED,
    };
    if (advice == LOAM_ADVISE_WRITEBACK && range_ok(off, len)) {
        return start_writeback(f, off, len);
    }
    if (advice == 0 || advice >= sizeof words / sizeof words[0] || !range_ok(off, len)) {
        return -EINVAL;
    }
    return -posix_fadvise(f->fd, (off_t)off, (off_t)len, words[advice]);
}

/* ---- names ----------------------------------------------------------------------------------- */

static int os_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    int fd;
    RETRY(fd, open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0) {
        return -errno;
    }
    int rc;
    RETRY(rc, fsync(fd));
    rc = result_of(rc);
    close(fd);
    return rc;
}

static int os_mkdir(void *ctx, const char *dir)
{
    (void)ctx;
    return result_of(mkdir(dir, 0700));
}

static int os_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return result_of(rename(from, to));
}

static int os_link(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return result_of(link(from, to));
}

static int os_remove(void *ctx, const char *path)
{
    (void)ctx;
    return result_of(remove(path));
}

/* NULL at the end, or with errno set. */
static struct dirent *next_name(DIR *d)
{
    struct dirent *e;
    do {
        errno = 0; /* readdir tells an error from the end by it alone */
        e = readdir(d);
    } while (e == NULL && errno == EINTR);
    return e;
}

static int os_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    (void)ctx;
    DIR *d;
    do {
        d = opendir(dir);
    } while (d == NULL && errno == EINTR);
    if (d == NULL) {
        return -errno;
    }
    int rc = 0;
    for (;;) {
        struct dirent *e = next_name(d);
        if (e == NULL) {
            rc = -errno;
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (fn(arg, loam_bytes(e->d_name, strlen(e->d_name))) != 0) {
            break;
        }
    }
    closedir(d);
    return rc;
}

/* ---- the lock -------------------------------------------------------------------------------- */

static bool held_here_locked(const struct stat *st)
{
    pid_t pid = getpid(); /* a forked child's list still names its parent's locks */
    for (struct loam_file *f = held_locks; f != NULL; f = f->next) {
        if (f->dev == st->st_dev && f->ino == st->st_ino && f->pid == pid) {
            return true;
        }
    }
    return false;
}

/* 0 when `path` is a name of the file, -ESTALE when it is one of another; or -errno. */
static int named(const char *path, const struct stat *file)
{
    struct stat there;
    if (fstatat(AT_FDCWD, path, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        return -errno;
    }
    return there.st_dev == file->st_dev && there.st_ino == file->st_ino ? 0 : -ESTALE;
}

/* 0 or -errno. What is open below it keeps the directory's number from being another's. */
static int stat_parent(const char *path, struct stat *st)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (n >= sizeof dir) {
        return -ENAMETOOLONG;
    }
    memcpy(dir, n != 0 ? path : ".", n != 0 ? n : 1);
    dir[n != 0 ? n : 1] = '\0';
    return stat(dir, st) != 0 ? -errno : 0;
}

static int os_is_named(void *ctx, loam_file *f, const char *path)
{
    (void)ctx;
    struct stat at;
    int rc = fstat(f->fd, &at) != 0 ? -errno : named(path, &at);
    if (rc == 0 && f->is_lock) { /* a copy of hard links has the file, too */
        rc = stat_parent(path, &at);
        rc = rc == 0 && (at.st_dev != f->dir_dev || at.st_ino != f->dir_ino) ? -ESTALE : rc;
    }
    return rc;
}

/* An open file description lock: unlike fcntl's older kind it does not vanish when the process
 * closes another descriptor of the file. */
static int take_locked(const char *path, int *fd_out, struct stat *st, struct stat *dir)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        int fd = open_regular(path, O_RDWR | O_CREAT, st);
        if (fd < 0) {
            return fd;
        }
        int rc = 0;
        if (held_here_locked(st)) {
            rc = -EAGAIN;
        } else {
            struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
            RETRY(rc, fcntl(fd, F_OFD_SETLK, &l));
            rc = result_of(rc);
        }
        /* It may have been removed before the lock was taken. */
        if (rc == 0 && stat_parent(path, dir) == 0 && named(path, st) == 0) {
            *fd_out = fd;
            return 0;
        }
        close(fd);
        if (rc != 0) {
            return rc == -EACCES ? -EAGAIN : rc;
        }
    }
    return -EAGAIN;
}

static int os_lock(void *ctx, const char *path, loam_file **f)
{
    (void)ctx;
    int fd;
    struct stat st, dir;
    struct loam_file *file = NULL;
    pthread_mutex_lock(&held_mutex);
    int rc = take_locked(path, &fd, &st, &dir);
    if (rc == 0) {
        rc = file_new(fd, &file);
    }
    if (rc == 0) {
        file->is_lock = true;
        file->pid = getpid();
        file->dev = st.st_dev;
        file->ino = st.st_ino;
        file->dir_dev = dir.st_dev;
        file->dir_ino = dir.st_ino;
        file->next = held_locks;
        held_locks = file;
        *f = file;
    }
    pthread_mutex_unlock(&held_mutex);
    return rc;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int os_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)ctx;
    struct statvfs s;
    int rc;
    RETRY(rc, statvfs(dir, &s));
    if (rc < 0) {
        return -errno;
    }
    *free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
    *total_bytes = (uint64_t)s.f_blocks * s.f_frsize;
    return 0;
}

static uint64_t os_now_us(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static int os_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    size_t done = 0;
    while (done < n) {
        ssize_t got;
        RETRY(got, getrandom((char *)buf + done, n - done, 0));
        if (got < 0) {
            return -errno;
        }
        done += (size_t)got;
    }
    return 0;
}

#define OS_VFS(name_, open_)                                                                       \
    {                                                                                              \
        .struct_size = sizeof(loam_vfs), .name = (name_), .open = (open_), .close = os_close,      \
        .read = os_read, .write = os_write, .sync = os_sync, .truncate = os_truncate,              \
        .reserve = os_reserve, .size = os_size, .map = os_map, .unmap = os_unmap,                  \
        .advise = os_advise, .sync_dir = os_sync_dir, .mkdir = os_mkdir, .rename = os_rename,      \
        .link = os_link, .remove = os_remove, .list = os_list, .lock = os_lock, .space = os_space, \
        .now_us = os_now_us, .random = os_random, .write_durable = os_write_durable,               \
        .is_named = os_is_named,                                                                   \
    }

LOAM_API const loam_vfs *loam_vfs_os(void)
{
    static const loam_vfs os = OS_VFS("os", os_open);
    return &os;
}

LOAM_API const loam_vfs *loam_vfs_os_mapped(void)
{
    static const loam_vfs os = OS_VFS("os-mapped", os_open_mapped);
    return &os;
}
