/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The rig: makes the packet anew for each run and hands it to the program that
 * is measured. With nobody to hand it to, it sends packets; see `generate`. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum { ARRAY = 2, PROG_ARRAY = 3, PERCPU_ARRAY = 6 };
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;

/* How a packet looks; `bench/src/lb/rig/packet.rs` writes it. */
struct settings {
	u64 words[10]; /* the frame's head, without source and source port */
	u32 length;    /* of the frame */
	u32 flows;     /* until they begin again */
	u32 source;    /* the lowest, as a number: the last four bytes of IPv6 */
	u32 verdict;   /* when there is no program to hand the packet to */
	u32 ip_sum;    /* one's complement sums without what is left out */
	u32 l4_sum;    /* 0: no checksum */
	u32 ipv6;
	u32 unused;
};

struct {
	__uint(type, ARRAY);
	__type(key, u32);
	__type(value, struct settings);
	__uint(max_entries, 1);
} settings SEC(".maps");

struct {
	__uint(type, ARRAY);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, 1);
} next_flow SEC(".maps");

struct {
	__uint(type, PROG_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
	__uint(max_entries, 1);
} subject SEC(".maps");

struct {
	__uint(type, PERCPU_ARRAY);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, 1);
} sunk SEC(".maps");

static __attribute__((always_inline)) inline u16 checksum(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int rig(struct xdp_md *ctx)
{
	u32 zero = 0, source, words, n;
	struct settings *is = bpf_map_lookup_elem(&settings, &zero);
	u64 *next = bpf_map_lookup_elem(&next_flow, &zero);
	u16 port;
	u8 *at;

	if (!is || !next)
		return XDP_ABORTED;
	if (ctx->data_end - ctx->data != is->length &&
	    bpf_xdp_adjust_head(ctx, (int)(ctx->data_end - ctx->data) - (int)is->length))
		return XDP_ABORTED;
	at = (void *)(long)ctx->data;
	n = *next;
	*next = n + 1 < is->flows ? n + 1 : 0;
	source = __builtin_bswap32(is->source + n);
	port = __builtin_bswap16(1024 + (n & 0x3fff));
	words = (source & 0xffff) + (source >> 16);
	if (!is->ipv6) {
		if (at + 60 > (u8 *)(long)ctx->data_end)
			return XDP_ABORTED;
		for (int i = 0; i < 7; i++)
			((u64 *)at)[i] = is->words[i];
		*(u32 *)(at + 56) = is->words[7];
		*(u32 *)(at + 26) = source;
		*(u16 *)(at + 24) = checksum(is->ip_sum + words);
		*(u16 *)(at + 34) = port;
		if (is->l4_sum)
			*(u16 *)(at + 50) = checksum(is->l4_sum + words + port);
	} else {
		if (at + 80 > (u8 *)(long)ctx->data_end)
			return XDP_ABORTED;
		for (int i = 0; i < 10; i++)
			((u64 *)at)[i] = is->words[i];
		*(u32 *)(at + 34) = source;
		*(u16 *)(at + 54) = port;
		if (is->l4_sum)
			*(u16 *)(at + 70) = checksum(is->l4_sum + words + port);
	}
	bpf_tail_call(ctx, &subject, 0);
	return is->verdict;
}

/* The least that a program can do. */
SEC("xdp")
int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

/* The least that a program can do that puts IPv4 into IPv4. */
SEC("xdp")
int encapsulate(struct xdp_md *ctx)
{
	u64 *old, *data;

	if (bpf_xdp_adjust_head(ctx, -20))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	old = (void *)data + 20;
	if ((void *)data + 54 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	data[0] = old[0];
	*(u32 *)(data + 1) = *(u32 *)(old + 1);
	*(u16 *)((void *)data + 12) = 8;
	*(u16 *)((void *)data + 14) = 0x45;
	*(u16 *)((void *)data + 16) = 0x5000;
	*(u32 *)((void *)data + 18) = 0x40;
	*(u32 *)((void *)data + 22) = 0x0440;
	*(u32 *)((void *)data + 26) = 0x0100000a;
	*(u32 *)((void *)data + 30) = 0x0200000a;
	return XDP_TX;
}

/* Counts and drops what arrives; neighbours may still be asked for. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	u32 zero = 0;
	u64 *count = bpf_map_lookup_elem(&sunk, &zero);
	u8 *at = (void *)(long)ctx->data;

	if (at + 14 <= (u8 *)(long)ctx->data_end && *(u16 *)(at + 12) == 0x0608)
		return XDP_PASS;
	if (count)
		*count += 1;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
