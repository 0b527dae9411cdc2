/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Internet checksums, adjusted by differences (RFC 1624). */
#pragma once
#include "parse.h"

/* Sixteen bits of a sum. */
inlined u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

inlined u16 adjust(u16 checksum, u32 difference)
{
	return ~fold((u64)(u16)~checksum + difference);
}

inlined u32 word_difference(u32 old, u32 new)
{
	return (~old & 0xffff) + (~old >> 16) + (new & 0xffff) + (new >> 16);
}

inlined u32 address_difference(const u32 *old, const u32 *new, const int v6)
{
	u32 sum = word_difference(old[0], new[0]);

	if (v6)
#pragma unroll
		for (int i = 1; i < 4; i++)
			sum += word_difference(old[i], new[i]);
	return sum;
}

inlined int address_same(const u32 *a, const u32 *b, const int v6)
{
	if (!v6)
		return a[0] == b[0];
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Where the checksum of the transport header is, or -1: SCTP's covers no
 * addresses, and neither does that of ICMP in IPv4. */
inlined int checksum_place(const struct packet *p, const int v6)
{
	if (p->kind == TCP)
		return 16;
	if (p->kind == UDP)
		return 6;
	if (p->kind == ECHO)
		return 2;
	(void)v6;
	return -1;
}

/* Adjusts the transport checksum for changed addresses and ports; 1 when it cannot. */
inlined int adjust_transport(context *ctx, const struct packet *p, u32 addresses, u32 ports,
			     const int v6)
{
	int place = checksum_place(p, v6);
	u32 difference = (p->kind == ECHO && !v6 ? 0 : addresses) + ports;
	u16 *checksum;

	if (place < 0 || !difference)
		return 0;
	checksum = header(ctx, p->l4 + place, 2);
	if (!checksum)
		return 1;
	if (p->kind == UDP && !*checksum)
		return 0;
#ifdef HOOK_TC
	{
		/* The kernel may have left the checksum to the device. */
		u64 mangled = p->kind == UDP ? BPF_F_MARK_MANGLED_0 : 0;
		u32 at = p->l4 + place;

		if (!(p->kind == ECHO && !v6) &&
		    bpf_l4_csum_replace(ctx, at, 0, addresses, mangled | BPF_F_PSEUDO_HDR))
			return 1;
		return ports && bpf_l4_csum_replace(ctx, at, 0, ports, mangled);
	}
#else
	*checksum = adjust(*checksum, difference);
	if (p->kind == UDP && !*checksum)
		*checksum = 0xffff;
	return 0;
#endif
}
