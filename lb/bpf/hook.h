/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What differs between XDP and TC, so that nothing else does. */
#pragma once
#include "kernel.h"

#define DATA(ctx) ((void *)(long)(ctx)->data)
#define DATA_END(ctx) ((void *)(long)(ctx)->data_end)

#ifdef HOOK_TC

typedef struct __sk_buff context;
enum verdict { PASS = TC_NEXT, DROP = TC_SHOT };

/* In tc_index: sent by this program, which may see it again where it leaves. */
enum { SENT_BY_US = 0xca77 };

inlined u32 frame_length(context *ctx)
{
	return ctx->len;
}

inlined u32 came_in_by(context *ctx)
{
	return ctx->ifindex;
}

/* Makes the headers readable: they may lie outside the linear part. */
inlined void pull(context *ctx)
{
	if (unlikely(DATA(ctx) + 128 > DATA_END(ctx)) && ctx->data_end - ctx->data < ctx->len)
		bpf_skb_pull_data(ctx, ctx->len < 320 ? ctx->len : 320);
}

/* Room after the Ethernet header; that stays in front. */
inlined long grow(context *ctx, u32 room, u64 flags)
{
	return bpf_skb_adjust_room(ctx, room, BPF_ADJ_ROOM_MAC, flags);
}

inlined long set_length(context *ctx, u32 length)
{
	return bpf_skb_change_tail(ctx, length, 0);
}

/* Length of the IP packets that will be on the wire: segments of GSO. UDP's
 * header is the least there is; one too many packet-too-big would stall TCP. */
inlined u32 wire_length(context *ctx, u32 length, u32 l4)
{
	return ctx->gso_size ? ctx->gso_size + l4 - ETH_LEN + 8 : length;
}

inlined int send_out(context *ctx, u32 ifindex)
{
	ctx->tc_index = SENT_BY_US;
	return bpf_redirect(ifindex, 0);
}

/* To this machine itself, if it is the sender. */
inlined int send_back(context *ctx)
{
	ctx->tc_index = SENT_BY_US;
	return bpf_redirect(ctx->ifindex, ctx->ingress_ifindex ? 0 : BPF_F_INGRESS);
}

inlined int was_seen(context *ctx)
{
	if (ctx->tc_index != SENT_BY_US)
		return 0;
	ctx->tc_index = 0;
	return 1;
}

#else

typedef struct xdp_md context;
enum verdict { PASS = XDP_PASS, DROP = XDP_DROP };

inlined u32 frame_length(context *ctx)
{
	return ctx->data_end - ctx->data;
}

inlined u32 came_in_by(context *ctx)
{
	return ctx->ingress_ifindex;
}

inlined void pull(context *ctx)
{
	(void)ctx;
}

/* Room in front of the frame, with the Ethernet addresses moved there. */
inlined long grow(context *ctx, u32 room, u64 flags)
{
	struct eth *old = DATA(ctx), *eth;
	u32 a, b, c;

	(void)flags;
	if ((void *)(old + 1) > DATA_END(ctx))
		return -1;
	a = ((u32 *)old)[0];
	b = ((u32 *)old)[1];
	c = ((u32 *)old)[2];
	if (bpf_xdp_adjust_head(ctx, -(int)room))
		return -1;
	eth = DATA(ctx);
	if ((void *)(eth + 1) > DATA_END(ctx))
		return -1;
	((u32 *)eth)[0] = a;
	((u32 *)eth)[1] = b;
	((u32 *)eth)[2] = c;
	return 0;
}

inlined long set_length(context *ctx, u32 length)
{
	return bpf_xdp_adjust_tail(ctx, (int)length - (int)frame_length(ctx));
}

inlined u32 wire_length(context *ctx, u32 length, u32 l4)
{
	(void)ctx;
	(void)l4;
	return length;
}

inlined int send_back(context *ctx)
{
	(void)ctx;
	return XDP_TX;
}

inlined int was_seen(context *ctx)
{
	(void)ctx;
	return 0;
}

inlined int send_out(context *ctx, u32 ifindex)
{
	if (ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

#endif
