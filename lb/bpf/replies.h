/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets made here: RST, ICMP errors, echo replies. All go back where the
 * packet came from. */
#pragma once
#include "checksum.h"

inlined int swap_ethernet(context *ctx, const int v6)
{
	struct eth *eth = header(ctx, 0, sizeof(*eth));
	u8 from[6];

	if (!eth)
		return 0;
	copy(from, eth->from, 6);
	copy(eth->from, eth->to, 6);
	copy(eth->to, from, 6);
	eth->type = v6 ? ETH_IPV6 : ETH_IPV4;
	return 1;
}

/* An IP header from the packet's receiver to its sender. */
inlined void write_reply_ip(void *at, const struct packet *p, u32 payload, u8 protocol,
			    const int v6)
{
	if (v6) {
		struct ipv6 *ip = at;

		ip->version_class_label = swap32(6U << 28);
		ip->payload = swap16(payload);
		ip->next = protocol;
		ip->hops = 64;
		copy(ip->source, p->destination, 16);
		copy(ip->destination, p->source, 16);
	} else {
		struct ipv4 *ip = at;
		u32 sum;

		ip->version_ihl = 0x45;
		ip->tos = 0;
		ip->length = swap16(payload + sizeof(*ip));
		ip->id = 0;
		ip->fragment = IPV4_DF;
		ip->ttl = 64;
		ip->protocol = protocol;
		ip->source = p->destination[0];
		ip->destination = p->source[0];
		sum = 0x45 + (u32)ip->length + IPV4_DF + (64 | (u32)protocol << 8) +
		      (ip->source & 0xffff) + (ip->source >> 16) + (ip->destination & 0xffff) +
		      (ip->destination >> 16);
		ip->checksum = ~fold(sum);
	}
}

inlined u64 pseudo_sum(const struct packet *p, u32 payload, u8 protocol, const int v6)
{
	u64 sum = (u64)p->source[0] + p->destination[0] + swap32(payload) + swap32(protocol);

	if (v6)
#pragma unroll
		for (int i = 1; i < 4; i++)
			sum += (u64)p->source[i] + p->destination[i];
	return sum;
}

inlined int silently(void)
{
	count(DROPPED);
	return DROP;
}

inlined int reset(context *ctx, struct packet *p, const int v6)
{
	const u32 ip_length = v6 ? sizeof(struct ipv6) : sizeof(struct ipv4);
	struct tcp *tcp = header(ctx, p->l4, sizeof(*tcp));
	u32 sequence = 0, acknowledgement = 0;
	u8 flags = TCP_RST;
	u64 sum;

	if (!tcp || tcp->flags & TCP_RST)
		return silently();
	if (tcp->flags & TCP_ACK) {
		sequence = tcp->acknowledgement;
	} else {
		u32 segment = p->length - (p->l4 - ETH_LEN) - (tcp->offset >> 4) * 4;

		segment += !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
		acknowledgement = swap32(swap32(tcp->sequence) + segment);
		flags |= TCP_ACK;
	}
	if (set_length(ctx, ETH_LEN + ip_length + sizeof(*tcp)))
		return DROP;
	void *ip = header(ctx, ETH_LEN, ip_length + sizeof(*tcp));
	if (!ip || !swap_ethernet(ctx, v6))
		return DROP;
	write_reply_ip(ip, p, sizeof(*tcp), IPPROTO_TCP, v6);
	tcp = ip + ip_length;
	tcp->ports = p->ports >> 16 | p->ports << 16;
	tcp->sequence = sequence;
	tcp->acknowledgement = acknowledgement;
	tcp->offset = 0x50;
	tcp->flags = flags;
	tcp->window = 0;
	tcp->urgent = 0;
	sum = pseudo_sum(p, sizeof(*tcp), IPPROTO_TCP, v6);
	sum += (u64)tcp->ports + sequence + acknowledgement + (0x50 | (u32)flags << 8);
	tcp->checksum = ~fold(sum);
	count(REJECTED);
	return send_back(ctx);
}

/* An ICMP error with the first `keep` bytes of the packet. */
inlined int icmp_error(context *ctx, struct packet *p, u8 type, u8 code, u32 mtu, u32 keep,
		       enum reason reason, const int v6)
{
	const u32 ip_length = v6 ? sizeof(struct ipv6) : sizeof(struct ipv4);
	struct icmp *icmp;
	void *ip;
	u64 sum;

	if (p->length < keep || set_length(ctx, ETH_LEN + keep))
		return -2;
	if (grow(ctx, ip_length + sizeof(*icmp), 0))
		return DROP;
	ip = header(ctx, ETH_LEN, ip_length + sizeof(*icmp) + keep);
	if (!ip || !swap_ethernet(ctx, v6))
		return DROP;
	write_reply_ip(ip, p, sizeof(*icmp) + keep, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, v6);
	icmp = ip + ip_length;
	icmp->type = type;
	icmp->code = code;
	icmp->checksum = 0;
	*(u32 *)&icmp->id = swap32(mtu);
	sum = bpf_csum_diff(0, 0, (u32 *)icmp, sizeof(*icmp) + keep, 0);
	if (v6)
		sum += pseudo_sum(p, sizeof(*icmp) + keep, IPPROTO_ICMPV6, 1);
	icmp->checksum = ~fold(sum);
	count(reason);
	return send_back(ctx);
}

inlined int unreachable(context *ctx, struct packet *p, const int v6)
{
	int verdict;

	if (!p->plain || p->fragment == LATER_FRAGMENT || p->kind == ECHO)
		return silently();
	verdict = v6 ? icmp_error(ctx, p, 1, 4, 0, 48, REJECTED, 1) :
		       icmp_error(ctx, p, 3, 3, 0, 28, REJECTED, 0);
	return verdict == -2 ? silently() : verdict;
}

inlined int too_big(context *ctx, struct packet *p, u32 mtu, const int v6)
{
	int verdict = v6 ? icmp_error(ctx, p, 2, 0, mtu, 256, TOO_BIG, 1) :
			   icmp_error(ctx, p, 3, 4, mtu, 256, TOO_BIG, 0);

	if (verdict != -2)
		return verdict;
	count(MALFORMED);
	return DROP;
}

/* What a VIP or service wants done with a packet nobody takes. */
inlined int refuse(context *ctx, struct packet *p, u8 how, const int v6)
{
	if (how == REFUSE_PASS)
		return PASS;
	if (how == REFUSE_DROP)
		return silently();
	if (p->kind != TCP)
		return unreachable(ctx, p, v6);
	if (!p->plain || p->fragment == LATER_FRAGMENT)
		return silently();
	return reset(ctx, p, v6);
}

/* The request itself, turned round. */
inlined int answer_echo(context *ctx, struct packet *p, const int v6)
{
	struct icmp *icmp = header(ctx, p->l4, sizeof(*icmp));
	u32 difference;

	if (!icmp || !swap_ethernet(ctx, v6))
		return DROP;
	difference = word_difference(icmp->type, v6 ? 129 : 0);
	icmp->checksum = adjust(icmp->checksum, difference);
	icmp->type = v6 ? 129 : 0;
	if (v6) {
		struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return DROP;
		ip->version_class_label = swap32(6U << 28);
		ip->hops = 64;
		copy(ip->source, p->destination, 16);
		copy(ip->destination, p->source, 16);
	} else {
		struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return DROP;
		difference = word_difference((u32)ip->tos << 8, 0) +
			     word_difference(ip->ttl, 64);
		ip->checksum = adjust(ip->checksum, difference);
		ip->tos = 0;
		ip->ttl = 64;
		ip->source = p->destination[0];
		ip->destination = p->source[0];
	}
	count(ECHO_ANSWERED);
	return send_back(ctx);
}
