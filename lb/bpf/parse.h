/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the headers of a packet say. */
#pragma once
#include "hook.h"
#include "tables.h"

enum { WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT };
enum { NO_ICMP, ICMP_REQUEST, ICMP_REPLY, ICMP_IS_ERROR, ICMP_IS_OTHER };

/* The packet an error speaks of, turned round: what a packet of the other
 * direction has as its key. */
struct told {
	u32 source[4], destination[4];
	u32 ports;
	u16 ip, l4; /* where its headers are */
	u8 kind, reply; /* reply: an echo reply was told of */
};

struct packet {
	u32 source[4], destination[4]; /* IPv4 in the first word */
	u32 ports;
	u32 id; /* of the fragment */
	u64 hash; /* of the key, for places and entropy */
	u32 to_source[4], to_destination[4], to_ports; /* NAT: what they become */
	u16 length; /* of the IP packet */
	u16 l4; /* where the transport header begins, from the frame's start */
	u8 protocol, kind, icmp, fragment;
	u8 first, last; /* of its flow */
	u8 plain; /* neither IPv4 options nor IPv6 extension headers */
	u8 dscp; /* of the VIP, for L3DSR */
	struct told told;
};

/* n bytes at an offset of the frame, or nothing. */
inlined void *header(context *ctx, u32 offset, u32 n)
{
	void *at = DATA(ctx) + (offset & 0x7ff);

	return at + n > DATA_END(ctx) ? 0 : at;
}

inlined int parse_ipv4(context *ctx, struct packet *p)
{
	struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));
	u32 ihl;

	if (!ip)
		return 0;
	ihl = (ip->version_ihl & 15) * 4;
	p->length = swap16(ip->length);
	if (ip->version_ihl >> 4 != 4 || ihl < sizeof(*ip) || p->length < ihl ||
	    p->length + ETH_LEN > frame_length(ctx))
		return 0;
	p->source[0] = ip->source;
	p->destination[0] = ip->destination;
	p->protocol = ip->protocol;
	p->l4 = ETH_LEN + ihl;
	p->plain = ihl == sizeof(*ip);
	p->id = ip->id;
	p->fragment = WHOLE;
	if (unlikely(ip->fragment & (IPV4_OFFSET | IPV4_MORE)))
		p->fragment = ip->fragment & IPV4_OFFSET ? LATER_FRAGMENT : FIRST_FRAGMENT;
	return 1;
}

inlined int parse_ipv6(context *ctx, struct packet *p)
{
	struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));
	u32 length;

	if (!ip)
		return 0;
	length = swap16(ip->payload) + sizeof(*ip);
	if ((ip->version_class_label & 0xf0) != 0x60 || length + ETH_LEN > frame_length(ctx) ||
	    length > 0xffff)
		return 0;
	p->length = length;
	copy(p->source, ip->source, 16);
	copy(p->destination, ip->destination, 16);
	p->protocol = ip->next;
	p->l4 = ETH_LEN + sizeof(*ip);
	p->plain = 1;
	p->id = 0;
	p->fragment = WHOLE;
	return 1;
}

/* Whether n bytes at the offset belong to the packet, not to padding. */
inlined int within(const struct packet *p, u32 offset, u32 n)
{
	return offset + n <= p->length + ETH_LEN;
}

inlined int is_extension(u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT;
}

/* Walks at most four extension headers; a non-first fragment ends the walk. */
verified_apart int walk_extensions(context *ctx, struct packet *p)
{
	u32 offset;
	u8 next;

	if (!p)
		return 0;
	offset = p->l4;
	next = p->protocol;
	p->plain = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 4; i++) {
		u8 *bytes;
		u32 length = 8;

		if (!is_extension(next))
			break;
		bytes = header(ctx, offset, 8);
		if (!bytes || !within(p, offset, 8))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			u16 place = *(u16 *)(bytes + 2);

			p->id = *(u32 *)(bytes + 4);
			if (place & swap16(0xfff8))
				p->fragment = LATER_FRAGMENT;
			else if (place & swap16(1))
				p->fragment = FIRST_FRAGMENT;
		} else {
			length = (bytes[1] + 1) * 8;
		}
		next = bytes[0];
		offset += length;
		if (offset > 0x7ff || !within(p, offset, 0))
			return 0;
		if (p->fragment == LATER_FRAGMENT)
			break;
	}
	p->protocol = next;
	p->l4 = offset;
	return 1;
}

inlined u8 kind_of(u8 protocol, const int v6)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return TCP;
	case IPPROTO_UDP:
		return UDP;
	case IPPROTO_SCTP:
		return SCTP;
	}
	return protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) ? ECHO : OTHER;
}

inlined u8 icmp_of(u8 type, const int v6)
{
	if (type == (v6 ? 128 : 8))
		return ICMP_REQUEST;
	if (type == (v6 ? 129 : 0))
		return ICMP_REPLY;
	if (v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12)
		return ICMP_IS_ERROR;
	return ICMP_IS_OTHER;
}

inlined int parse_icmp(context *ctx, struct packet *p, const int v6)
{
	struct icmp *icmp = header(ctx, p->l4, sizeof(*icmp));

	if (!icmp || !within(p, p->l4, sizeof(*icmp)))
		return 0;
	p->icmp = icmp_of(icmp->type, v6);
	p->ports = p->icmp == ICMP_REPLY ? (u32)icmp->id << 16 : icmp->id;
	return 1;
}

inlined int parse_sctp(context *ctx, struct packet *p)
{
	u8 *sctp = header(ctx, p->l4, 16);
	u8 chunk;

	if (!sctp || !within(p, p->l4, 16))
		return 0;
	p->ports = *(u32 *)sctp;
	chunk = sctp[12];
	p->first = chunk == 1;
	p->last = chunk == 6 || chunk == 7 || chunk == 14;
	return 1;
}

/* The transport header; 0 when it is cut short. */
inlined int parse_transport(context *ctx, struct packet *p, const int v6)
{
	p->icmp = NO_ICMP;
	p->first = p->last = 0;
	p->ports = 0;
	if (v6 && unlikely(is_extension(p->protocol)) && !walk_extensions(ctx, p))
		return 0;
	p->kind = kind_of(p->protocol, v6);
	if (p->kind == OTHER) {
		p->ports = p->protocol;
		return 1;
	}
	if (unlikely(p->fragment == LATER_FRAGMENT))
		return 1;
	if (likely(p->kind == TCP)) {
		struct tcp *tcp = header(ctx, p->l4, sizeof(*tcp));

		if (!tcp || !within(p, p->l4, sizeof(*tcp)))
			return 0;
		p->ports = tcp->ports;
		p->first = (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
		p->last = (tcp->flags & (TCP_FIN | TCP_RST)) != 0;
		return 1;
	}
	if (p->kind == UDP) {
		struct udp *udp = header(ctx, p->l4, sizeof(*udp));

		if (!udp || !within(p, p->l4, sizeof(*udp)))
			return 0;
		p->ports = *(u32 *)udp;
		return 1;
	}
	return p->kind == SCTP ? parse_sctp(ctx, p) : parse_icmp(ctx, p, v6);
}
