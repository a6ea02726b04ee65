/* Stands in for xfs_quota: misbehaves as the file /run/tool says, or tells in /run/tool.seen how it was started and runs
 * the real one. It makes few system calls, as it runs under the helper's filter. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char mode[64], report[1 << 16];

static void read_mode(void) {
    int file = open("/run/tool", O_RDONLY);
    ssize_t size = file < 0 ? 0 : read(file, mode, sizeof mode - 1);
    mode[size < 0 ? 0 : size] = 0;
    if (file >= 0) close(file);
}

static void tell(int count, char **arguments, char **environment) {
    char *end = report;
    for (int i = 0; i < count; i++) end += sprintf(end, "argument %.300s\n", arguments[i]);
    for (; *environment; environment++) end += sprintf(end, "environment %.300s\n", *environment);
    for (int i = 0; i < 256; i++) {
        char link[32], target[256];
        sprintf(link, "/proc/self/fd/%d", i);
        ssize_t size = readlink(link, target, sizeof target);
        if (size > 0) end += sprintf(end, "descriptor %d %.*s\n", i, (int)size, target);
    }
    int file = open("/run/tool.seen", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || write(file, report, end - report) < 0) _exit(99);
    close(file);
}

static void say(int file, const char *text) { if (write(file, text, strlen(text)) < 0) _exit(98); }

int main(int count, char **arguments, char **environment) {
    read_mode();
    if (!strcmp(mode, "hang")) for (;;) __asm__ volatile("");
    if (!strcmp(mode, "rubbish")) return say(1, "\x1b[31m#\xff\xfe not a table\n\n42 42"), 0;
    if (!strcmp(mode, "silent")) return 0;
    if (!strcmp(mode, "error, exit 0")) return say(2, "xfs_quota: cannot setup path for mount\n"), 0;
    if (!strcmp(mode, "exit 1")) return 1;
    if (!strcmp(mode, "flood")) for (;;) say(1, "/dev/ubda 4 0 8192 00 [--------] /vfroot/xfs\n");
    if (!strcmp(mode, "crash")) return *(volatile int *)0;
    tell(count, arguments, environment);
    execve("/usr/sbin/xfs_quota", arguments, environment);
    return 97;
}
