/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which service a packet is for. */
#pragma once
#include "hash.h"
#include "parse.h"

struct vip {
	u32 first, count; /* rules, within the copy */
	u8 other, flags;
	u8 copy; /* of the tables, the same for the rules as for the prefix */
	u8 next; /* the next shorter prefix length to try */
};

inlined const struct view *active_view(const struct settings *settings, u32 *copy)
{
	*copy = read_once(settings->active) & 1;
	return &settings->views[*copy];
}

inlined int take_vip(struct vip *vip, u8 flags, u8 other, u32 first, u32 count)
{
	vip->first = first;
	vip->count = count;
	vip->other = other;
	vip->flags = flags;
	return 1;
}

/* The first bits of a word in packet order. */
inlined u32 mask_word(u32 word, int bits)
{
	if (bits >= 32)
		return word;
	return bits <= 0 ? 0 : word & swap32(~0U << ((32 - bits) & 31));
}

inlined int probe4(u32 address, u32 length, u64 seed, u32 copy, struct vip *vip)
{
	u32 masked = mask_word(address, length);
	struct vip_bucket4 *bucket;

	bucket = at(vips4, copy * vip_buckets +
			   scale(hash_last(hash_word(seed, masked), length), vip_buckets));
	if (!bucket)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct vip4 *v = &bucket->vips[i];

		if (v->address == masked && v->length == length && v->used)
			return take_vip(vip, v->flags, v->other, v->first, v->count);
	}
	return 0;
}

inlined int probe6(const u32 *address, u32 length, u64 seed, u32 copy, struct vip *vip)
{
	struct vip_bucket6 *bucket;
	u32 m[4];
	u64 h;

#pragma unroll
	for (int i = 0; i < 4; i++)
		m[i] = mask_word(address[i], (int)length - 32 * i);
	h = hash_word(seed, m[0] | (u64)m[1] << 32);
	h = hash_word(h, m[2] | (u64)m[3] << 32);
	bucket = at(vips6, copy * vip_buckets + scale(hash_last(h, length), vip_buckets));
	if (!bucket)
		return 0;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vip6 *v = &bucket->vips[i];

		if (v->address[0] == m[0] && v->address[1] == m[1] && v->address[2] == m[2] &&
		    v->address[3] == m[3] && v->length == length && v->used)
			return take_vip(vip, v->flags, v->other, v->first, v->count);
	}
	return 0;
}

inlined int probe(const u32 *address, u32 length, u64 seed, u32 copy, struct vip *vip, const int v6)
{
	return v6 ? probe6(address, length, seed, copy, vip) :
		    probe4(address[0], length, seed, copy, vip);
}

/* The VIP of the i-th longest prefix length in use; -1 after the last. */
inlined int vip_of_length(const u32 *address, const struct settings *settings, u32 i,
			  struct vip *vip, const int v6)
{
	u32 copy;
	const struct view *view = active_view(settings, &copy);

	if (i >= (v6 ? view->count6 : view->count4))
		return -1;
	vip->copy = copy;
	vip->next = i + 1;
	return probe(address, v6 ? view->lengths6[i & 7] : view->lengths4[i & 7], view->seed, copy,
		     vip, v6) &&
	       vip->count;
}

inlined int shorter_vip(const struct packet *p, u32 from, struct vip *vip, const int v6)
{
	struct settings *settings = get_settings();

	if (!settings)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_LENGTHS; i++) {
		int found;

		if (i < from)
			continue;
		found = vip_of_length(p->destination, settings, i, vip, v6);
		if (found)
			return found > 0;
	}
	return 0;
}

verified_apart int shorter_vip4(const struct packet *p, u32 from, struct vip *vip)
{
	return p && vip ? shorter_vip(p, from, vip, 0) : 0;
}

verified_apart int shorter_vip6(const struct packet *p, u32 from, struct vip *vip)
{
	return p && vip ? shorter_vip(p, from, vip, 1) : 0;
}

/* The longest VIP prefix of the destination; most have but one length. */
inlined int find_vip(const struct packet *p, const struct settings *settings, struct vip *vip,
		     const int v6)
{
	int found = vip_of_length(p->destination, settings, 0, vip, v6);

	if (likely(found > 0))
		return 1;
	if (found < 0 || (v6 ? active_view(settings, &(u32){0})->count6 :
			       active_view(settings, &(u32){0})->count4) < 2)
		return 0;
	return v6 ? shorter_vip6(p, 1, vip) : shorter_vip4(p, 1, vip);
}

/* Whether an address needs SNAT as a client. */
inlined int is_near(const u32 *address, const int v6)
{
	struct settings *settings = get_settings();
	struct vip vip;
	u32 copy;

	if (!settings)
		return 0;
	return probe(address, v6 ? 128 : 32, active_view(settings, &copy)->seed, copy, &vip, v6) &&
	       vip.flags & ADDRESS_NEAR;
}

inlined int takes(const struct rule *rule, u32 kind, u16 port, int any_port)
{
	return rule->kinds & (1 << (kind & 7)) &&
	       (any_port || kind > SCTP || (rule->low <= port && port <= rule->high));
}

/* What a rule says, in registers. */
struct match {
	u16 service, vip;
	u8 dscp;
};

enum { ANY_PORT = 0x10000 };

/* Looks at one rule: 1 it takes the packet, 0 it does not, -1 there is none. */
inlined int try_rule(const struct vip *vip, u32 i, u32 kind, u32 port, struct match *m)
{
	struct rule *rule;

	if (i >= vip->count)
		return -1;
	rule = at(rules, (vip->copy & 1) * rules_count + vip->first + i);
	if (!rule)
		return -1;
	if (!takes(rule, kind, port & 0xffff, port & ANY_PORT))
		return 0;
	m->service = rule->service;
	m->vip = rule->vip;
	m->dscp = rule->dscp;
	return 1;
}

/* The first rule of a VIP, after `from` others, that takes the kind and the VIP's port. */
verified_apart int find_rule(const struct vip *vip, u32 from, u32 kind, u32 port, struct match *m)
{
	if (!vip || !m)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_RULES; i++) {
		int found;

		if (i < from)
			continue;
		found = try_rule(vip, i, kind, port, m);
		if (found)
			return found > 0;
	}
	return 0;
}

inlined int rule_of_shorter(const struct packet *p, u32 from, u32 kind, u32 port, struct match *m,
			    const int v6)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_LENGTHS; i++) {
		struct vip vip = {};

		if (!(v6 ? shorter_vip6(p, from, &vip) : shorter_vip4(p, from, &vip)))
			return 0;
		if (find_rule(&vip, 0, kind, port, m))
			return 1;
		from = vip.next;
	}
	return 0;
}

verified_apart int rule_of_shorter4(const struct packet *p, u32 from, u32 kind, u32 port,
				    struct match *m)
{
	return p && m ? rule_of_shorter(p, from, kind, port, m, 0) : 0;
}

verified_apart int rule_of_shorter6(const struct packet *p, u32 from, u32 kind, u32 port,
				    struct match *m)
{
	return p && m ? rule_of_shorter(p, from, kind, port, m, 1) : 0;
}

/* The rule of the longest VIP that has one; most have but one rule. */
inlined int match_rule(const struct packet *p, const struct vip *vip, u32 kind, u32 port,
		       struct match *m, const int v6)
{
	int found = try_rule(vip, 0, kind, port, m);

	if (likely(found > 0))
		return 1;
	if (!found && vip->count > 1 && find_rule(vip, 1, kind, port, m))
		return 1;
	return v6 ? rule_of_shorter6(p, vip->next, kind, port, m) :
		    rule_of_shorter4(p, vip->next, kind, port, m);
}
