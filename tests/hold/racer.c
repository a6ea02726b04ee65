/*
 * Changes the entries of a folder as fast as the kernel allows: directories and files become links to a place outside,
 * FIFOs, other directories, and themselves again. It is what a user can do in a container, and never resolves a link
 * itself. Usage: racer FOLDER OUTSIDE SECONDS SEED. Prints how many changes there were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif
#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* The directories that paths of requests lead through, each in the one before it, and the files in them. */
static const char *const directories[] = { "swap", "inner", "deep" };
static const char *const files[] = { "file", "other" };

static char outside[4000];
static char aside[64];

/* What an entry turns into. */
static void make(int at, const char *name, unsigned kind)
{
	char target[8192];

	if (unlinkat(at, name, 0))
		unlinkat(at, name, AT_REMOVEDIR);
	switch (kind % 6) {
	case 0: /* a link that leads out by an absolute path */
		symlinkat(outside, at, name);
		break;
	case 1: /* by a relative one */
		snprintf(target, sizeof target, "../../../../../../../../../../../../../../..%s", outside);
		symlinkat(target, at, name);
		break;
	case 2: /* to the secret itself */
		snprintf(target, sizeof target, "%s/secret", outside);
		symlinkat(target, at, name);
		break;
	case 3:
		mkfifoat(at, name, 0666);
		break;
	case 4:
		mkdirat(at, name, 0777);
		break;
	default:
		close(openat(at, name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0666));
	}
}

static void exchange(int at, const char *one, const char *other)
{
	syscall(SYS_renameat2, at, one, at, other, RENAME_EXCHANGE);
}

/* Makes an entry what requests expect. */
static void restore(int at, const char *name, int directory)
{
	struct stat found;

	if (!fstatat(at, name, &found, AT_SYMLINK_NOFOLLOW)) {
		if (directory ? S_ISDIR(found.st_mode) : S_ISREG(found.st_mode))
			return;
		if (unlinkat(at, name, 0))
			unlinkat(at, name, AT_REMOVEDIR);
	}
	if (directory)
		mkdirat(at, name, 0777);
	else
		close(openat(at, name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0666));
}

/* One directory and its entries, then the one below it. */
static unsigned long visit(int at, unsigned depth)
{
	unsigned long changes = 0;
	unsigned i, rounds = random() % 4;
	int below;

	for (i = 0; i < COUNT(files); i++)
		restore(at, files[i], 0);
	if (depth == COUNT(directories))
		return 0;
	restore(at, directories[depth], 1);
	below = openat(at, directories[depth], O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (below >= 0) {
		changes += visit(below, depth + 1);
		close(below);
	}
	for (i = 0; i < rounds; i++) {
		unsigned choice = random() % 16;
		const char *name = choice < 10 ? directories[depth] : choice < 15 || depth ? files[choice % 2] : ".upload";

		make(at, aside, random());
		exchange(at, name, aside);
		exchange(at, name, aside);
		changes += 2;
		/* Now and then it stays exchanged until the next visit. */
		if (!(random() % 8)) {
			exchange(at, name, aside);
			changes++;
		}
	}
	return changes;
}

int main(int argc, char **argv)
{
	unsigned long changes = 0;
	int folder;
	time_t end;

	umask(0);
	if (argc != 5 || (folder = open(argv[1], O_RDONLY | O_DIRECTORY)) < 0)
		return 2;
	snprintf(outside, sizeof outside, "%s", argv[2]);
	snprintf(aside, sizeof aside, ".aside-%s", argv[4]);
	srandom(atoi(argv[4]));
	for (end = time(NULL) + atoi(argv[3]); time(NULL) < end;)
		changes += visit(folder, 0);
	printf("%lu\n", changes);
	return 0;
}
