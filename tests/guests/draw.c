/*
 * Draws on the first display as a program does that has a frame ready each
 * time: two dumb buffers, each filled and then flipped to, waiting for each
 * flip. Then makes and destroys buffers: each maps and unmaps its pages for
 * the device. Lines for scripts begin with "draw: ".
 *
 * usage: draw SECONDS
 */
#include <drm.h>
#include <drm_mode.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int card;

struct buffer {
	uint32_t handle, fb, pitch;
	uint64_t size;
	uint32_t *pixels;
};

static void ask(unsigned long request, void *argument, const char *what)
{
	while (ioctl(card, request, argument) < 0) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		printf("draw: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static struct buffer make(uint32_t width, uint32_t height)
{
	struct drm_mode_create_dumb create = { .width = width, .height = height, .bpp = 32 };
	struct drm_mode_map_dumb map = { 0 };
	struct buffer b = { 0 };

	ask(DRM_IOCTL_MODE_CREATE_DUMB, &create, "create");
	b.handle = create.handle;
	b.pitch = create.pitch;
	b.size = create.size;
	map.handle = b.handle;
	ask(DRM_IOCTL_MODE_MAP_DUMB, &map, "map");
	b.pixels = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, map.offset);
	if (b.pixels == MAP_FAILED) {
		printf("draw: mmap: %s\n", strerror(errno));
		exit(1);
	}
	return b;
}

static void drop(struct buffer *b)
{
	struct drm_mode_destroy_dumb destroy = { .handle = b->handle };

	munmap(b->pixels, b->size);
	ask(DRM_IOCTL_MODE_DESTROY_DUMB, &destroy, "destroy");
}

static void show(struct buffer *b, uint32_t width, uint32_t height)
{
	struct drm_mode_fb_cmd fb = {
		.width = width, .height = height, .pitch = b->pitch,
		.bpp = 32, .depth = 24, .handle = b->handle,
	};

	ask(DRM_IOCTL_MODE_ADDFB, &fb, "add a frame buffer");
	b->fb = fb.fb_id;
}

int main(int count, char **words)
{
	double seconds = count > 1 ? atof(words[1]) : 10, begin, end;
	uint32_t crtcs[8], connectors[8], width, height;
	struct drm_mode_modeinfo modes[128];
	struct drm_mode_card_res found = {
		.crtc_id_ptr = (uintptr_t)crtcs, .count_crtcs = 8,
		.connector_id_ptr = (uintptr_t)connectors, .count_connectors = 8,
	};
	struct drm_mode_get_connector connector = {
		.modes_ptr = (uintptr_t)modes, .count_modes = 128,
	};
	struct buffer b[2];
	long frames = 0, rounds = 0;

	setvbuf(stdout, NULL, _IONBF, 0);
	card = open("/dev/dri/card0", O_RDWR);
	if (card < 0) {
		printf("draw: card0: %s\n", strerror(errno));
		return 1;
	}
	ask(DRM_IOCTL_SET_MASTER, NULL, "master");
	ask(DRM_IOCTL_MODE_GETRESOURCES, &found, "resources");
	connector.connector_id = connectors[0];
	ask(DRM_IOCTL_MODE_GETCONNECTOR, &connector, "connector");
	width = modes[0].hdisplay;
	height = modes[0].vdisplay;
	for (int i = 0; i < 2; i++) {
		b[i] = make(width, height);
		show(&b[i], width, height);
	}
	struct drm_mode_crtc crtc = {
		.set_connectors_ptr = (uintptr_t)connectors, .count_connectors = 1,
		.crtc_id = crtcs[0], .fb_id = b[0].fb, .mode_valid = 1, .mode = modes[0],
	};
	ask(DRM_IOCTL_MODE_SETCRTC, &crtc, "mode");

	begin = now();
	do {
		struct buffer *next = &b[(frames + 1) & 1];
		struct drm_mode_crtc_page_flip flip = {
			.crtc_id = crtcs[0], .fb_id = next->fb,
			.flags = DRM_MODE_PAGE_FLIP_EVENT,
		};
		char event[1024];

		memset(next->pixels, (int)frames, next->size);
		ask(DRM_IOCTL_MODE_PAGE_FLIP, &flip, "flip");
		if (read(card, event, sizeof(event)) <= 0) {
			printf("draw: no event: %s\n", strerror(errno));
			return 1;
		}
		frames++;
		end = now();
	} while (end - begin < seconds);
	printf("draw: %ux%u, %ld frames, %.2f frames a second\n", width, height, frames,
	       frames / (end - begin));

	/* 256 x 256 pixels: 64 pages. */
	begin = now();
	do {
		struct buffer small = make(256, 256);
		drop(&small);
		rounds++;
		end = now();
	} while (end - begin < seconds);
	printf("draw: 64 pages, %ld rounds, %.0f pages mapped and unmapped a second\n", rounds,
	       64 * rounds / (end - begin));
	return 0;
}
