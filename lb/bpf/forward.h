/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* On to a server: the last headers, and out. */
#pragma once
#include "checksum.h"
#include "flow.h"
#include "replies.h"

/* In two stores; the machine minds no alignment, the compiler would. */
inlined void write_mac(u8 *at, u64 mac)
{
	*(u32 *)at = mac;
	*(u16 *)(at + 4) = mac >> 32;
}

/* Ethernet addresses of the next hop, and out of its interface. */
inlined int out(context *ctx, u64 to, u64 from, u32 ifindex, u16 type)
{
	struct eth *eth = header(ctx, 0, sizeof(*eth));

	if (!eth)
		return DROP;
	write_mac(eth->to, to);
	write_mac(eth->from, from);
	eth->type = type;
	return send_out(ctx, ifindex);
}

/* Asks the kernel where an address is; it may as well be here. */
apart int out_by_fib(context *ctx, const u32 *source, const u32 *destination, int v6, u32 type)
{
	struct bpf_fib_lookup fib = {};
	u64 to = 0, from = 0;

	fib.family = v6 ? AF_INET6 : AF_INET;
	fib.ifindex = came_in_by(ctx);
	fib.destination[0] = destination[0];
	fib.source[0] = source[0];
	if (v6) {
		copy(fib.destination, destination, 16);
		copy(fib.source, source, 16);
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != 0)
		return -2;
	copy(&to, fib.dmac, 6);
	copy(&from, fib.smac, 6);
	return out(ctx, to, from, fib.ifindex, type);
}

inlined int pass_up(enum reason reason)
{
	count(reason);
	return PASS;
}

inlined int to_server(context *ctx, const struct server *server, const u32 *source,
		      const u32 *destination, const int v6)
{
	int verdict;

	if (likely(server->ifindex))
		return out(ctx, server->hop_mac, server->hop_source, server->ifindex,
			   v6 ? ETH_IPV6 : ETH_IPV4);
	verdict = out_by_fib(ctx, source, destination, v6, v6 ? ETH_IPV6 : ETH_IPV4);
	return verdict == -2 ? pass_up(UNRESOLVED) : verdict;
}

/* What an outer header takes over from the inner one. */
struct inner {
	u16 length, id, df; /* id and df in packet order */
	u8 tos, v6;
};

inlined int read_inner(context *ctx, struct inner *inner, const int v6)
{
	if (v6) {
		struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		inner->tos = (swap32(ip->version_class_label) >> 20) & 0xff;
		inner->length = swap16(ip->payload) + sizeof(*ip);
		inner->id = 0;
		inner->df = IPV4_DF;
	} else {
		struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		inner->tos = ip->tos;
		inner->length = swap16(ip->length);
		inner->id = ip->id;
		inner->df = ip->fragment & IPV4_DF;
	}
	inner->v6 = v6;
	return 1;
}

inlined void write_ipv4(struct ipv4 *ip, const struct inner *inner, u32 length, u8 protocol,
			u32 source, u32 destination)
{
	u32 sum;

	ip->version_ihl = 0x45;
	ip->tos = inner->tos;
	ip->length = swap16(length);
	ip->id = inner->id;
	ip->fragment = inner->df;
	ip->ttl = 64;
	ip->protocol = protocol;
	ip->source = source;
	ip->destination = destination;
	sum = (0x45 | (u32)inner->tos << 8) + swap16(length) + inner->id + inner->df +
	      (64 | (u32)protocol << 8) + (source & 0xffff) + (source >> 16) +
	      (destination & 0xffff) + (destination >> 16);
	ip->checksum = ~fold(sum);
}

inlined void write_ipv6(struct ipv6 *ip, const struct inner *inner, u32 length, u8 next, u64 h,
			const u32 *source, const u32 *destination)
{
	ip->version_class_label = swap32(6U << 28 | (u32)inner->tos << 20 | (h & 0xfffff));
	ip->payload = swap16(length - sizeof(*ip));
	ip->next = next;
	ip->hops = 64;
	copy(ip->source, source, 16);
	copy(ip->destination, destination, 16);
}

inlined void write_udp(struct udp *udp, u64 h, u16 port, u32 length)
{
	udp->source = swap16(0xc000 | (h & 0x3fff));
	udp->destination = swap16(port);
	udp->length = swap16(length);
	udp->checksum = 0;
}

/* Bytes between the outer IP header and the inner one. */
inlined u32 between(const int mode, const int keyed)
{
	switch (mode) {
	case GRE:
		return keyed ? 8 : 4;
	case GUE:
		return 8;
	case VXLAN:
		return 8 + 8 + ETH_LEN;
	}
	return 0;
}

inlined u8 outer_protocol(const int mode, u8 inner_v6)
{
	if (mode == GRE)
		return IPPROTO_GRE;
	if (mode == IPIP)
		return inner_v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	return IPPROTO_UDP;
}

inlined void write_between(void *at, u32 room, const struct inner *inner,
			   const struct server *server, const struct settings *settings, u16 port,
			   u64 h, const int mode, const int keyed)
{
	u16 type = inner->v6 ? ETH_IPV6 : ETH_IPV4;

	if (mode == GRE) {
		u32 *gre = at;

		gre[0] = (keyed ? 0x20 : 0) | (u32)type << 16;
		if (keyed)
			gre[1] = swap32(server->key);
	}
	if (mode == GUE || mode == VXLAN)
		write_udp(at, h, port, room + inner->length);
	if (mode == VXLAN) {
		u32 *vxlan = at + sizeof(struct udp);
		struct eth *eth = at + sizeof(struct udp) + 8;

		vxlan[0] = 0x08;
		vxlan[1] = swap32(server->key << 8);
		copy(eth->to, server->mac, 6);
		copy(eth->from, settings->mac, 6);
		eth->type = type;
	}
}

inlined u64 grow_flags(const int outer6, const int mode)
{
	u64 flags = outer6 ? ADJ_ROOM_ENCAP_L3_IPV6 : ADJ_ROOM_ENCAP_L3_IPV4;

	if (mode == GRE)
		flags |= ADJ_ROOM_ENCAP_L4_GRE;
	if (mode == GUE || mode == VXLAN)
		flags |= ADJ_ROOM_ENCAP_L4_UDP;
	if (mode == VXLAN)
		flags |= ADJ_ROOM_ENCAP_L2_ETH | ADJ_ROOM_ENCAP_L2(ETH_LEN);
	return flags;
}

inlined int tunnel(context *ctx, const struct settings *settings, const struct service *service,
		   const struct server *server, const struct inner *inner, u64 h, int pass,
		   const int outer6, const int mode, const int keyed)
{
	const u32 outer = outer6 ? sizeof(struct ipv6) : sizeof(struct ipv4);
	const u32 room = between(mode, keyed);
	u32 length = outer + room + inner->length;
	u8 protocol = outer_protocol(mode, inner->v6);
	void *ip;

	if (grow(ctx, outer + room, grow_flags(outer6, mode)))
		return DROP;
	ip = header(ctx, ETH_LEN, outer + room);
	if (!ip)
		return DROP;
	if (outer6)
		write_ipv6(ip, inner, length, protocol, h, settings->source6, server->address);
	else
		write_ipv4(ip, inner, length, protocol, settings->source4, server->address[0]);
	write_between(ip + outer, room, inner, server, settings, service->port, h, mode, keyed);
	if (unlikely(pass)) {
		struct eth *eth = header(ctx, 0, sizeof(*eth));

		if (!eth)
			return DROP;
		eth->type = outer6 ? ETH_IPV6 : ETH_IPV4;
		return PASS;
	}
	if (likely(server->ifindex))
		return out(ctx, server->hop_mac, server->hop_source, server->ifindex,
			   outer6 ? ETH_IPV6 : ETH_IPV4);
	return -2;
}

#define TUNNEL(outer6, mode, keyed) \
	tunnel(ctx, settings, service, server, &inner, h, pass, outer6, mode, keyed)

/* Encapsulates; -2 when the next hop is not known. */
inlined int encapsulate(context *ctx, const struct settings *settings,
			const struct service *service, const struct server *server, u64 h,
			int pass, const int v6)
{
	struct inner inner = {};
	u8 mode = service->mode, flags = server->flags;

	if (!read_inner(ctx, &inner, v6))
		return DROP;
	if (flags & SERVER_V6) {
		if (mode == IPIP)
			return TUNNEL(1, IPIP, 0);
		if (mode == GUE)
			return TUNNEL(1, GUE, 0);
		if (mode == VXLAN)
			return TUNNEL(1, VXLAN, 0);
		return flags & SERVER_HAS_KEY ? TUNNEL(1, GRE, 1) : TUNNEL(1, GRE, 0);
	}
	if (mode == IPIP)
		return TUNNEL(0, IPIP, 0);
	if (mode == GUE)
		return TUNNEL(0, GUE, 0);
	if (mode == VXLAN)
		return TUNNEL(0, VXLAN, 0);
	return flags & SERVER_HAS_KEY ? TUNNEL(0, GRE, 1) : TUNNEL(0, GRE, 0);
}

inlined u32 overhead(u8 mode, u8 flags)
{
	u32 outer = flags & SERVER_V6 ? sizeof(struct ipv6) : sizeof(struct ipv4);

	switch (mode) {
	case GRE:
		return outer + (flags & SERVER_HAS_KEY ? 8 : 4);
	case GUE:
		return outer + 8;
	case VXLAN:
		return outer + 30;
	}
	return outer;
}

/* The destination becomes the server and the DSCP tells which VIP it was. */
inlined int l3dsr(context *ctx, struct packet *p, const struct server *server, const int v6)
{
	u32 difference;

	if (v6) {
		struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));
		u32 word;

		if (!ip)
			return DROP;
		difference = address_difference(p->destination, server->address, 1);
		copy(ip->destination, server->address, 16);
		word = swap32(ip->version_class_label);
		word = (word & ~(0xfcU << 20)) | (u32)p->dscp << 22;
		ip->version_class_label = swap32(word);
	} else {
		struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));
		u8 tos;

		if (!ip)
			return DROP;
		difference = address_difference(p->destination, server->address, 0);
		tos = (ip->tos & 3) | p->dscp << 2;
		ip->checksum = adjust(ip->checksum,
				      difference + word_difference((u32)ip->tos << 8, (u32)tos << 8));
		ip->tos = tos;
		ip->destination = server->address[0];
	}
	if (p->fragment != LATER_FRAGMENT && adjust_transport(ctx, p, difference, 0, v6))
		return DROP;
	return to_server(ctx, server, p->source, server->address, v6);
}

/* Only the Ethernet addresses change, so the server may be of another family. */
inlined int l2(context *ctx, const struct server *server, const int v6)
{
	u32 nobody[4] = {};
	u16 type = v6 ? ETH_IPV6 : ETH_IPV4;
	int verdict;

	if (likely(server->ifindex))
		return out(ctx, server->hop_mac, server->hop_source, server->ifindex, type);
	verdict = out_by_fib(ctx, nobody, server->address, !!(server->flags & SERVER_V6), type);
	return verdict == -2 ? pass_up(UNRESOLVED) : verdict;
}

enum { FITS, FOR_THE_KERNEL, ANSWERED };

/* A packet that will not fit: what is done, and the verdict when it was answered. */
inlined int too_big_for(context *ctx, struct packet *p, u32 mtu, int *verdict, const int v6)
{
	struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));

	if (!ip)
		return FITS;
	if (p->fragment || p->icmp == ICMP_IS_ERROR || (!v6 && !(ip->fragment & IPV4_DF))) {
		count(TOO_BIG_PASSED);
		return FOR_THE_KERNEL;
	}
	*verdict = too_big(ctx, p, mtu, v6);
	return ANSWERED;
}

verified_apart int too_big_for4(context *ctx, struct packet *p, u32 mtu, int *verdict)
{
	if (!p || !verdict)
		return FITS;
	return too_big_for(ctx, p, mtu, verdict, 0);
}

verified_apart int too_big_for6(context *ctx, struct packet *p, u32 mtu, int *verdict)
{
	if (!p || !verdict)
		return FITS;
	return too_big_for(ctx, p, mtu, verdict, 1);
}

inlined int through_tunnel(context *ctx, struct packet *p, const struct service *service,
			   const struct server *server, const int v6)
{
	struct settings *settings = get_settings();
	u32 more = overhead(service->mode, server->flags);
	int fits = FITS, verdict = DROP, outer6 = !!(server->flags & SERVER_V6);

	if (!settings)
		return DROP;
	if (unlikely(server->mtu && wire_length(ctx, p->length, p->l4) + more > server->mtu)) {
		fits = v6 ? too_big_for6(ctx, p, server->mtu - more, &verdict) :
			    too_big_for4(ctx, p, server->mtu - more, &verdict);
		if (fits == ANSWERED)
			return verdict;
	}
	verdict = encapsulate(ctx, settings, service, server, p->hash, fits == FOR_THE_KERNEL, v6);
	if (likely(verdict != -2))
		return verdict;
	u32 source[4] = { settings->source4 };

	if (outer6)
		copy(source, settings->source6, 16);
	verdict = out_by_fib(ctx, source, server->address, outer6, outer6 ? ETH_IPV6 : ETH_IPV4);
	if (verdict != -2)
		return verdict;
	struct eth *eth = header(ctx, 0, sizeof(*eth));

	if (!eth)
		return DROP;
	eth->type = outer6 ? ETH_IPV6 : ETH_IPV4;
	return pass_up(UNRESOLVED);
}
