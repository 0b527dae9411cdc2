/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The server's side: takes packets for its VIPs out of what the balancer wrapped
 * them in, and gives packets marked by DSCP their VIP back. Everything else, and
 * outer fragments, the kernel gets as they came. */
#include "kernel.h"

#define VIPS 64
#define ETHERNET 14
#define AT(offset) (ETHERNET + (offset))

enum { IPIP = 1, GRE = 2, GUE = 4, VXLAN = 8 };
enum { TC_OK = 0, ROOM_MAC = 1 };
enum { DECAP_IPV4 = 1 << 7, DECAP_IPV6 = 1 << 8 };
enum { PSEUDO_HEADER = 0x10, ZERO_MEANS_NONE = 0x20 };
enum { TCP = 6, UDP = 17 };

struct vip {
	u32 address[4], mask[4];
	u32 ipv6;
};

/* `lb/src/unwrap/settings.rs` writes it. Addresses and ports as in packets. */
struct settings {
	u32 accept;
	u16 gue_port, vxlan_port;
	u32 vips;
	u32 marks; /* whether any DSCP means a VIP */
	u32 own4, own6[4];
	struct vip vip[VIPS];
	u32 marked4[64];
	u32 marked6[64][4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct settings);
	__uint(max_entries, 1);
} decap_settings SEC(".maps");

/* Packets by what was done: unwrapped, marked, wrapped but for nobody here. */
struct {
	__uint(type, 6);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, 3);
} decap_counters SEC(".maps");

static long (*const load)(const void *skb, u32 at, void *to, u32 length) = (void *)26;
static long (*const store)(void *skb, u32 at, const void *from, u32 length,
			   u64 flags) = (void *)9;
static long (*const adjust_room)(void *skb, s32 by, u32 mode, u64 flags) = (void *)50;
static long (*const l3_csum_replace)(void *skb, u32 at, u64 from, u64 to,
				     u64 size) = (void *)10;

inlined void count(u32 what)
{
	u64 *counter = bpf_map_lookup_elem(&decap_counters, &what);

	if (counter)
		*counter += 1;
}

/* Where the inner packet begins behind the Ethernet header, 0: nowhere. */
inlined u32 inner(struct __sk_buff *skb, const struct settings *is, u32 at, u8 protocol)
{
	u8 head[8] __attribute__((aligned(8)));

	if (protocol == 4 || protocol == 41)
		return is->accept & IPIP ? at : 0;
	if (load(skb, AT(at), head, 8))
		return 0;
	if (protocol == 47 && is->accept & GRE && !(head[0] & ~0x20) && !head[1])
		return at + (head[0] ? 8 : 4);
	if (protocol != UDP)
		return 0;
	u16 port = *(u16 *)(head + 2);

	if (is->accept & GUE && port == is->gue_port)
		return at + 8;
	if (is->accept & VXLAN && port == is->vxlan_port)
		return at + 8 + 8 + ETHERNET;
	return 0;
}

inlined int is_vip(const struct settings *is, const u32 *address, u32 ipv6)
{
	for (u32 n = 0; n < VIPS && n < is->vips; n++) {
		const struct vip *vip = &is->vip[n];
		u32 differs = vip->ipv6 ^ ipv6;

		for (u32 word = 0; word < 4; word++)
			differs |= (address[word] & vip->mask[word]) ^ vip->address[word];
		if (!differs)
			return 1;
	}
	return 0;
}

/* Gives a marked packet its VIP back. */
inlined void unmark4(struct __sk_buff *skb, const struct settings *is, const u8 *ip)
{
	u32 was = *(u32 *)(ip + 16), vip = is->marked4[ip[1] >> 2];
	u32 payload = AT((ip[0] & 15) * 4);

	if (!vip || was != is->own4 || was == vip)
		return;
	if (!(*(u16 *)(ip + 6) & 0xff1f)) {
		if (ip[9] == TCP)
			bpf_l4_csum_replace(skb, payload + 16, was, vip, PSEUDO_HEADER | 4);
		if (ip[9] == UDP)
			bpf_l4_csum_replace(skb, payload + 6, was, vip,
					    PSEUDO_HEADER | ZERO_MEANS_NONE | 4);
	}
	l3_csum_replace(skb, AT(10), was, vip, 4);
	store(skb, AT(16), &vip, 4, 0);
	count(1);
}

inlined void unmark6(struct __sk_buff *skb, const struct settings *is, const u8 *ip)
{
	u32 dscp = ((ip[0] & 15) << 2 | ip[1] >> 6) & 63;
	u32 was[4], vip[4], differs = 0, any = 0;

	for (u32 word = 0; word < 4; word++) {
		was[word] = ((u32 *)(ip + 24))[word];
		vip[word] = is->marked6[dscp][word];
		differs |= was[word] ^ is->own6[word];
		any |= vip[word];
	}
	if (differs || !any)
		return;
	s32 sum = bpf_csum_diff(was, 16, vip, 16, 0);

	if (ip[6] == TCP)
		bpf_l4_csum_replace(skb, AT(40 + 16), 0, sum, PSEUDO_HEADER);
	if (ip[6] == UDP)
		bpf_l4_csum_replace(skb, AT(40 + 6), 0, sum, PSEUDO_HEADER);
	store(skb, AT(24), vip, 16, 0);
	count(1);
}

SEC("classifier")
int carrick_decap(struct __sk_buff *skb)
{
	u32 zero = 0, at, from, address[4] = {};
	struct settings *is = bpf_map_lookup_elem(&decap_settings, &zero);
	u8 ip[40] __attribute__((aligned(8))) = {}, version, protocol;
	u16 type;

	if (!is || load(skb, 12, &type, 2) || load(skb, AT(0), ip, 20))
		return TC_NEXT;
	if (type == 0x0008) {
		if (is->marks)
			unmark4(skb, is, ip);
		if (*(u16 *)(ip + 6) & 0xff3f)
			return TC_NEXT;
		at = (ip[0] & 15) * 4;
		protocol = ip[9];
	} else if (type == 0xdd86) {
		if (load(skb, AT(0), ip, 40))
			return TC_NEXT;
		if (is->marks)
			unmark6(skb, is, ip);
		at = 40;
		protocol = ip[6];
	} else {
		return TC_NEXT;
	}
	from = inner(skb, is, at, protocol);
	if (!from || load(skb, AT(from), &version, 1))
		return TC_NEXT;
	version >>= 4;
	if (version == 4 ? load(skb, AT(from + 16), address, 4)
			 : version != 6 || load(skb, AT(from + 24), address, 16))
		return TC_NEXT;
	if (!is_vip(is, address, version == 6)) {
		count(2);
		return TC_NEXT;
	}
	type = version == 4 ? 0x0008 : 0xdd86;
	if (adjust_room(skb, -(s32)from, ROOM_MAC, version == 4 ? DECAP_IPV4 : DECAP_IPV6) ||
	    store(skb, 12, &type, 2, 0))
		return TC_SHOT;
	count(0);
	return TC_NEXT;
}
