/* Loaded before the C library: the Nth write, fsync, rename, open or allocation that concerns one folder fails.
   Allocations are counted where SQLite asks for them. fault_arm() is called through ctypes by the process itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, WRITE, FSYNC, RENAME, OPEN, ALLOC };

static volatile int armed, failing, sticky;
static volatile long left, seen, fired;
static char folder[4096];
static uintptr_t sqlite_from, sqlite_to;

static int range_of_sqlite(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size, (void)data;
  if (!info->dlpi_name || !strstr(info->dlpi_name, "libsqlite3")) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
      sqlite_from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
      sqlite_to = sqlite_from + info->dlpi_phdr[i].p_memsz;
    }
  return 1;
}

/* From now on the nth call of a kind fails with this errno, all later ones too where `stay` is set; 0 disarms. */
void fault_arm(int call, long nth, int error, int stay, const char *path) {
  armed = NONE;
  strncpy(folder, path, sizeof folder - 1);
  dl_iterate_phdr(range_of_sqlite, NULL);
  left = nth, failing = error, sticky = stay, seen = fired = 0;
  armed = call;
}

long fault_fired(void) { return fired; }
long fault_seen(void) { return seen; }
int fault_knows_sqlite(void) { return sqlite_from != 0; }

static int fails(int call) {
  if (armed != call) return 0;
  seen++;
  left--;
  if (left == 0 || (left < 0 && sticky)) {
    fired++;
    errno = failing;
    return 1;
  }
  return 0;
}

static int concerned(const char *path) { return path && strncmp(path, folder, strlen(folder)) == 0; }

static int concerns(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return concerned(path);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t n) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (armed == WRITE && concerns(fd) && fails(WRITE)) return -1;
  return real(fd, data, n);
}
ssize_t writev(int fd, const struct iovec *data, int n) {
  REAL(ssize_t, "writev", int, const struct iovec *, int);
  if (armed == WRITE && concerns(fd) && fails(WRITE)) return -1;
  return real(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
  if (armed == WRITE && concerns(fd) && fails(WRITE)) return -1;
  return real(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  if (armed == WRITE && concerns(fd) && fails(WRITE)) return -1;
  return real(fd, data, n, at);
}
int ftruncate64(int fd, off64_t n) {
  REAL(int, "ftruncate64", int, off64_t);
  if (armed == WRITE && concerns(fd) && fails(WRITE)) return -1;
  return real(fd, n);
}
int fsync(int fd) {
  REAL(int, "fsync", int);
  if (armed == FSYNC && concerns(fd) && fails(FSYNC)) return -1;
  return real(fd);
}
int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  if (armed == FSYNC && concerns(fd) && fails(FSYNC)) return -1;
  return real(fd);
}
int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  if (armed == RENAME && concerned(to) && fails(RENAME)) return -1;
  return real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
  REAL(int, "renameat", int, const char *, int, const char *);
  if (armed == RENAME && concerned(to) && fails(RENAME)) return -1;
  return real(a, from, b, to);
}
#define OPENS(name)                                                                 \
  int name(const char *path, int flags, ...) {                                      \
    REAL(int, #name, const char *, int, ...);                                       \
    va_list more;                                                                   \
    va_start(more, flags);                                                          \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;         \
    va_end(more);                                                                   \
    if (armed == OPEN && concerned(path) && fails(OPEN)) return -1;                 \
    return real(path, flags, mode);                                                 \
  }
OPENS(open)
OPENS(open64)

extern void *__libc_malloc(size_t);
extern void *__libc_realloc(void *, size_t);
static int asks_sqlite(void *caller) { return (uintptr_t)caller >= sqlite_from && (uintptr_t)caller < sqlite_to; }

void *malloc(size_t n) {
  if (armed == ALLOC && asks_sqlite(__builtin_return_address(0)) && fails(ALLOC)) return NULL;
  return __libc_malloc(n);
}
void *realloc(void *old, size_t n) {
  if (armed == ALLOC && asks_sqlite(__builtin_return_address(0)) && fails(ALLOC)) return NULL;
  return __libc_realloc(old, n);
}
