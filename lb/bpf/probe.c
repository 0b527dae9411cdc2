/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Questions to the kernel that only a program can ask. Run by hand, never
 * attached: the question comes as the packet, and so does the answer. */
#include "kernel.h"

enum { FIB_NO_NEIGHBOUR = 7, FIB_SKIP_NEIGHBOUR = 1 << 2 };

struct question {
	u8 family, known;
	u16 mtu;
	u32 ifindex;
	u8 from[6], to[6];
	u32 address[4];
	u32 shift, ticks;
	u8 unused[20];
};

/* The next hop of an address, as the kernel would forward from loopback. */
SEC("xdp") int carrick_hop(struct xdp_md *ctx)
{
	struct question *q = (void *)(long)ctx->data;
	struct bpf_fib_lookup fib = {};
	long result;

	if ((void *)(q + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	fib.family = q->family;
	fib.ifindex = 1;
	copy(fib.destination, q->address, 16);
	result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	q->known = result == 0;
	if (result == FIB_NO_NEIGHBOUR) {
		/* The MTU of the route is known all the same. */
		fib.tot_len = 0;
		fib.ifindex = 1;
		bpf_fib_lookup(ctx, &fib, sizeof(fib), FIB_SKIP_NEIGHBOUR);
	}
	q->ifindex = fib.ifindex;
	q->mtu = fib.tot_len;
	copy(q->from, fib.smac, 6);
	copy(q->to, fib.dmac, 6);
	return result >= 0 ? (int)result : 255;
}

/* The time in ticks, as the balancer sees it. */
SEC("xdp") int carrick_clock(struct xdp_md *ctx)
{
	struct question *q = (void *)(long)ctx->data;

	if ((void *)(q + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	q->ticks = (bpf_jiffies64() >> (q->shift & 63)) & 0xfff;
	return XDP_PASS;
}

char licence[] SEC("license") = "Dual BSD/GPL";
