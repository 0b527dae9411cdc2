/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* NAT: two entries for a flow, one for each direction, each saying what its
 * packets become. */
#pragma once
#include "forward.h"
#include "policy.h"
#include "vip.h"

#define NAT_META(v6) ((v6) ? 18 : 6)
#define NAT_INFO(v6) ((v6) ? 19 : 7)
#define NAT_TO(v6) ((v6) ? 9 : 3)

inlined u32 turned(u32 ports)
{
	return ports >> 16 | ports << 16;
}

inlined void read_translation(const u32 *entry, struct packet *p, const int v6)
{
	const u32 *to = entry + NAT_TO(v6);
	const int n = v6 ? 4 : 1;

#pragma unroll
	for (int i = 0; i < n; i++) {
		p->to_source[i] = to[i];
		p->to_destination[i] = to[n + i];
	}
	p->to_ports = to[2 * n];
}

inlined int store_nat(u32 *entry, const u32 *key_source, const u32 *key_destination, u32 key_ports,
		      const u32 *to_source, const u32 *to_destination, u32 to_ports, u32 meta,
		      u32 info, const int v6)
{
	write_key(entry, key_source, key_destination, key_ports, v6);
	write_key(entry + NAT_TO(v6), to_source, to_destination, to_ports, v6);
	entry[NAT_INFO(v6)] = info;
	publish(&entry[NAT_META(v6)], meta);
	return 1;
}

/* The entry of the other direction follows, so that neither idles alone. */
inlined void touch_other(struct packet *p, u32 meta, const int v6)
{
	struct settings *settings = get_settings();
	u32 *other, old, kind = meta_kind(meta);
	u64 h;

	if (!settings)
		return;
	h = hash_key(p->to_destination, p->to_source, turned(p->to_ports), kind,
		     settings->table_seed, v6);
	other = find_nat(h, p->to_destination, p->to_source, turned(p->to_ports), kind, v6);
	if (!other)
		return;
	old = read_once(other[NAT_META(v6)]);
	compare_and_swap(&other[NAT_META(v6)], old, (old & 0x3ffff) | (meta & ~0x3ffffU));
}
verified_apart int touch_other4(struct packet *p, u32 meta)
{
	if (!p)
		return 0;
	touch_other(p, meta, 0);
	return 0;
}
verified_apart int touch_other6(struct packet *p, u32 meta)
{
	if (!p)
		return 0;
	touch_other(p, meta, 1);
	return 0;
}

/* Rewrites addresses and ports of the packet to what p says. */
inlined int translate(context *ctx, struct packet *p, const int v6)
{
	u32 addresses = address_difference(p->source, p->to_source, v6) +
			address_difference(p->destination, p->to_destination, v6);
	u32 ports = 0;

	if (v6) {
		struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		copy(ip->source, p->to_source, 16);
		copy(ip->destination, p->to_destination, 16);
	} else {
		struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		ip->source = p->to_source[0];
		ip->destination = p->to_destination[0];
		ip->checksum = adjust(ip->checksum, addresses);
	}
	if (unlikely(p->fragment == LATER_FRAGMENT))
		return 1;
	if (p->to_ports != p->ports && p->kind <= ECHO) {
		ports = word_difference(p->ports, p->to_ports);
		if (p->kind == ECHO) {
			struct icmp *icmp = header(ctx, p->l4, sizeof(*icmp));

			if (!icmp)
				return 0;
			icmp->id = p->to_ports | p->to_ports >> 16;
		} else {
			u32 *place = header(ctx, p->l4, 4);

			if (!place)
				return 0;
			*place = p->to_ports;
		}
	}
	return !adjust_transport(ctx, p, addresses, ports, v6);
}

/* The SNAT address of a client; 0 when there is none. */
inlined int snat_address(const struct service *service, const struct settings *settings,
			 const u32 *client, u32 *address, const int v6)
{
	u32 n = v6 ? service->sources6 : service->sources4;
	u32 base = service->sources_base + (v6 ? service->sources4 : 0);
	struct address_row *row;

	if (!n)
		return 0;
	row = at(sources,
		 base + scale(hash_source(client, settings->slot_seed, AFFINITY, v6), n));
	if (!row)
		return 0;
	address[0] = row->w[0];
	if (v6)
		copy(address, row->w, 16);
	return 1;
}

inlined int needs_snat(const struct service *service, const u32 *client, const int v6)
{
	if (likely(service->snat == SNAT_NEVER))
		return 0;
	return service->snat == SNAT_ALWAYS || is_near(client, v6);
}

/* The i-th port to try, host order; 0 is none. */
inlined u32 candidate_port(const struct settings *settings, u32 own, u32 i, u64 h, u32 kind)
{
	u32 low = settings->port_low, high = settings->port_high;

	if (i == 0)
		return kind == ECHO || kind == SCTP || (own >= low && own <= high) ? own : 0x10000;
	if (kind == SCTP || high < low)
		return 0x10000;
	return low + ((u32)(h >> 16) + i * 7919) % (high - low + 1);
}

/* Fills in what the packet becomes, but for SNAT's port. 0: no address. */
inlined int plan_translation(struct packet *p, const struct service *service,
			     const struct server *server, const struct settings *settings,
			     int *snat, const int v6)
{
	copy(p->to_source, p->source, v6 ? 16 : 4);
	copy(p->to_destination, server->address, v6 ? 16 : 4);
	p->to_ports = p->ports;
	if (server->port && (p->kind == TCP || p->kind == UDP) && p->fragment != LATER_FRAGMENT)
		p->to_ports = (p->ports & 0xffff) | (u32)swap16(server->port) << 16;
	*snat = needs_snat(service, p->source, v6);
	return !*snat || snat_address(service, settings, p->source, p->to_source, v6);
}

/* Stores both directions of a new flow; 0 or the reason to drop the packet.
 * `known` is the forward entry to overwrite. */
inlined int new_nat(struct packet *p, const struct service *service, u32 service_number,
		    const struct server *server, u32 server_number, u32 vip, u32 *known,
		    const int v6)
{
	struct settings *settings = get_settings();
	u32 *reply = 0, *entry, tick, meta, info = service_number | vip << 16;
	u32 own, fixed;
	int snat, found = 0;
	u64 h, place = 0;

	if (!settings)
		return INTERNAL;
	tick = now(settings);
	if (!plan_translation(p, service, server, settings, &snat, v6))
		return NAT_NO_PORT;
	h = hash_key(p->source, p->destination, p->ports, p->kind, settings->slot_seed, v6);
	own = swap16(p->to_ports);
	fixed = p->to_ports & 0xffff0000;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 8; i++) {
		if (snat) {
			u32 port = candidate_port(settings, own, i, h, p->kind);

			if (port > 0xffff)
				continue;
			p->to_ports = fixed | swap16(port);
		}
		place = hash_key(p->to_destination, p->to_source, turned(p->to_ports), p->kind,
				 settings->table_seed, v6);
		reply = find_nat(place, p->to_destination, p->to_source, turned(p->to_ports),
				 p->kind, v6);
		found = !reply || is_idle(reply[NAT_META(v6)], settings->idle, tick) ||
			(!snat && same_key(reply + NAT_TO(v6), p->destination, p->source,
					   turned(p->ports), v6));
		if (found || !snat)
			break;
	}
	if (!found)
		return NAT_NO_PORT;
	meta = make_meta(server_number, p->kind, first_state(p), tick);
	if (reply) {
		if (!claim(reply, reply[NAT_META(v6)], v6 ? 20 : 8, NAT_META(v6)))
			return NAT_NO_ROOM;
	} else {
		reply = take_nat(place, settings->idle, tick, v6);
		if (!reply)
			return NAT_NO_ROOM;
	}
	store_nat(reply, p->to_destination, p->to_source, turned(p->to_ports), p->destination,
		  p->source, turned(p->ports), meta, info | 1U << 31, v6);
	if (known) {
		if (!claim(known, known[NAT_META(v6)], v6 ? 20 : 8, NAT_META(v6)))
			return NAT_NO_ROOM;
		entry = known;
	} else {
		entry = take_nat(p->hash, settings->idle, tick, v6);
		if (!entry)
			return NAT_NO_ROOM;
	}
	store_nat(entry, p->source, p->destination, p->ports, p->to_source, p->to_destination,
		  p->to_ports, meta, info, v6);
	return -1;
}

/* Remembers where fragments of a translated datagram go. */
inlined int store_translation(struct packet *p, u32 ports, u32 kind, u32 meta, u32 info,
			      const int v6)
{
	struct settings *settings = get_settings();
	u32 *entry, tick;
	u64 h;

	if (!settings)
		return 0;
	tick = now(settings);
	h = hash_key(p->source, p->destination, ports, kind, settings->table_seed, v6);
	entry = find_nat(h, p->source, p->destination, ports, kind, v6);
	if (entry) {
		if (!claim(entry, entry[NAT_META(v6)], v6 ? 20 : 8, NAT_META(v6)))
			return 0;
	} else {
		entry = take_nat(h, settings->idle, tick, v6);
	}
	if (entry)
		store_nat(entry, p->source, p->destination, ports, p->to_source, p->to_destination,
			  0, make_meta(meta_server(meta), kind, ESTABLISHED, tick), info, v6);
	return 0;
}

verified_apart int remember_translation4(struct packet *p, u32 ports, u32 kind, u32 meta, u32 info)
{
	return p ? store_translation(p, ports, kind, meta, info, 0) : 0;
}

verified_apart int remember_translation6(struct packet *p, u32 ports, u32 kind, u32 meta, u32 info)
{
	return p ? store_translation(p, ports, kind, meta, info, 1) : 0;
}

inlined void remember_translation(struct packet *p, u32 ports, u32 kind, u32 meta, u32 info,
				  const int v6)
{
	if (v6)
		remember_translation6(p, ports, kind, meta, info);
	else
		remember_translation4(p, ports, kind, meta, info);
}

inlined u32 fragment_word(const struct packet *p, const int v6)
{
	return v6 ? p->id : p->id | (u32)p->protocol << 16;
}

inlined int not_vip(void)
{
	count(NOT_VIP);
	return PASS;
}

/* Out to wherever the new destination is; up to the kernel if that is here. */
inlined int send_on(context *ctx, struct packet *p, const int v6)
{
	int verdict = out_by_fib(ctx, p->to_source, p->to_destination, v6,
				 v6 ? ETH_IPV6 : ETH_IPV4);

	return verdict == -2 ? PASS : verdict;
}

/* A fragment of an answer whose first one was seen. */
inlined u32 *find_fragment_translation(struct packet *p, const struct settings *settings,
				       const int v6)
{
	u32 word = fragment_word(p, v6), tick = now(settings);
	u64 h = hash_key(p->source, p->destination, word, FRAGMENT, settings->table_seed, v6);
	u32 *entry = find_nat(h, p->source, p->destination, word, FRAGMENT, v6);

	if (entry && !is_idle(entry[NAT_META(v6)], settings->idle, tick))
		return entry;
	h = hash_key(p->source, p->destination, p->protocol, HINT, settings->table_seed, v6);
	entry = find_nat(h, p->source, p->destination, p->protocol, HINT, v6);
	return entry && !is_idle(entry[NAT_META(v6)], settings->idle, tick) ? entry : 0;
}

/* A packet to no VIP: perhaps the answer of a server. */
inlined int nat_reply(context *ctx, struct packet *p, const int v6)
{
	struct settings *settings = get_settings();
	u32 *entry, meta, new, info;

	if (!settings || p->kind > ECHO)
		return not_vip();
	if (p->fragment == LATER_FRAGMENT) {
		entry = find_fragment_translation(p, settings, v6);
		if (!entry)
			return not_vip();
		read_translation(entry, p, v6);
	} else {
		if (p->icmp != NO_ICMP && p->icmp != ICMP_REPLY)
			return not_vip();
		p->hash = hash_key(p->source, p->destination, p->ports, p->kind,
				   settings->table_seed, v6);
		entry = find_nat(p->hash, p->source, p->destination, p->ports, p->kind, v6);
		if (!entry)
			return not_vip();
		meta = read_once(entry[NAT_META(v6)]);
		info = entry[NAT_INFO(v6)];
		if (!(info >> 31) || is_idle(meta, settings->idle, now(settings)))
			return not_vip();
		read_translation(entry, p, v6);
		new = touched(meta, p, now(settings));
		if (touch(&entry[NAT_META(v6)], meta, new, 1)) {
			if (v6)
				touch_other6(p, new);
			else
				touch_other4(p, new);
		}
		if (unlikely(p->fragment == FIRST_FRAGMENT)) {
			remember_translation(p, fragment_word(p, v6), FRAGMENT, new, info, v6);
			remember_translation(p, p->protocol, HINT, new, info, v6);
		}
	}
	count(NAT_REPLY);
	if (!translate(ctx, p, v6))
		return DROP;
	return send_on(ctx, p, v6);
}
