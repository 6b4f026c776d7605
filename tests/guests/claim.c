/*
 * Tells dmasan of memory by the GPU's vendor region (docs/qemu.md), as a
 * driver does: each word is a step. Lines for tests begin with "claim: ".
 *
 * usage: claim STEP...
 *   tag N                       of all steps after it
 *   allocate COOKIE LIST        LIST: ADDRESS+PAGES[,ADDRESS+PAGES...], physical
 *   device COOKIE LIST          the same, in the device's addresses
 *   own COOKIE PAGES            pages of this program's, locked
 *   retire COOKIE | free COOKIE | forget
 *   garbage N                   writes of anything anywhere in the region
 *   flood N                     doorbells as fast as it can
 *   counts
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICE "/sys/bus/pci/devices/0000:00:01.0/"
#define PAGE 4096ull

static volatile uint8_t *region;
static uint32_t entries;

static void fail(const char *what)
{
	printf("claim: failed: %s\n", what);
	exit(1);
}

static uint32_t get(int at)
{
	return *(volatile uint32_t *)(region + at);
}

/* Find the region by its capability. */
static void find(void)
{
	uint8_t config[256];
	int file = open(DEVICE "config", O_RDONLY), at;
	char name[64];

	if (file < 0 || read(file, config, sizeof(config)) != sizeof(config))
		fail("configuration space");
	for (at = config[0x34]; at; at = config[at + 1])
		if (config[at] == 9 && config[at + 3] == 9 &&
		    *(uint16_t *)(config + at + 4) == 0xd3a5)
			break;
	if (!at)
		fail("no capability");
	snprintf(name, sizeof(name), DEVICE "resource%d", config[at + 12]);
	file = open(name, O_RDWR);
	if (file < 0)
		fail(name);
	region = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (region == MAP_FAILED)
		fail("mmap");
	if (get(0) != 0x6e736d64 || get(4) != 1)
		fail("not the region");
	entries = get(8);
}

static void ring(const char *cookie, uint32_t doorbell)
{
	*(volatile uint64_t *)(region + 0x20) = strtoull(cookie, NULL, 0);
	*(volatile uint32_t *)(region + 0x30) = doorbell;
	/* The read comes back when all that was written has been taken. */
	printf("claim: %#x of %s: result %u\n", doorbell & 0xff, cookie, get(0x14));
}

/* A list may be longer than the window. */
static uint32_t filled;
static int first;

static void flush(const char *cookie, uint32_t space)
{
	if (filled)
		ring(cookie, (first ? 1 : 2) | space | filled << 16);
	filled = 0;
	first = 0;
}

static void entry(const char *cookie, uint32_t space, uint64_t address, uint64_t pages)
{
	while (pages) {
		uint64_t some = pages < 4096 ? pages : 4096;

		((volatile uint64_t *)(region + 0x800))[filled++] = address | (some - 1);
		address += some * PAGE;
		pages -= some;
		if (filled == entries)
			flush(cookie, space);
	}
}

static void list(const char *cookie, uint32_t space, char *text)
{
	char *one;

	first = 1;
	for (one = strtok(text, ","); one; one = strtok(NULL, ",")) {
		char *end;
		uint64_t address = strtoull(one, &end, 0);

		entry(cookie, space, address, *end == '+' ? strtoull(end + 1, NULL, 0) : 1);
	}
	flush(cookie, space);
}

static void own(const char *cookie, uint64_t pages)
{
	int map = open("/proc/self/pagemap", O_RDONLY);
	uint8_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (map < 0 || memory == MAP_FAILED || mlock(memory, pages * PAGE))
		fail("memory");
	first = 1;
	for (uint64_t at = 0; at < pages; at++) {
		uint64_t frame, place = ((uintptr_t)memory / PAGE + at) * 8;

		if (pread(map, &frame, 8, place) != 8 || !(frame & ((1ull << 55) - 1)))
			fail("pagemap");
		entry(cookie, 0, (frame & ((1ull << 55) - 1)) * PAGE, 1);
	}
	flush(cookie, 0);
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	find();
	for (int i = 1; i < count; i++) {
		const char *word = words[i];
		char *a = i + 1 < count ? words[i + 1] : "", *b = i + 2 < count ? words[i + 2] : "";

		if (!strcmp(word, "tag")) {
			*(volatile uint32_t *)(region + 0x28) = strtoul(a, NULL, 0);
			i++;
		} else if (!strcmp(word, "allocate")) {
			list(a, 0, b);
			i += 2;
		} else if (!strcmp(word, "device")) {
			list(a, 1 << 8, b);
			i += 2;
		} else if (!strcmp(word, "own")) {
			own(a, strtoull(b, NULL, 0));
			i += 2;
		} else if (!strcmp(word, "retire")) {
			ring(a, 3);
			i++;
		} else if (!strcmp(word, "free")) {
			ring(a, 4);
			i++;
		} else if (!strcmp(word, "forget")) {
			ring("0", 5);
		} else if (!strcmp(word, "garbage")) {
			srand(1);
			for (long n = strtol(a, NULL, 0); n > 0; n--) {
				int at = rand() % 1023 * 4;

				/* Often the doorbell, or nothing would come of it. */
				if (n % 4 == 0)
					at = 0x30;
				if (n % 2)
					*(volatile uint32_t *)(region + at) = rand();
				else if (at == 0x30)
					*(volatile uint32_t *)(region + at) = rand() % 6 | rand() % 4 << 16;
				else
					*(volatile uint64_t *)(region + (at & ~7)) =
						(uint64_t)(rand() % 0x20000) << 12;
			}
			i++;
		} else if (!strcmp(word, "flood")) {
			for (long n = strtol(a, NULL, 0); n > 0; n--) {
				*(volatile uint64_t *)(region + 0x20) = n;
				*(volatile uint32_t *)(region + 0x30) = n % 2 ? 1 | 256 << 16 : 4;
			}
			i++;
		} else if (!strcmp(word, "counts")) {
			printf("claim: taken %u, refused %u\n", get(0x0c), get(0x10));
		} else {
			fail(word);
		}
	}
	return 0;
}
