/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors: to the server of the flow they speak of. */
#pragma once
#include "nat.h"
#include "vip.h"

inlined int read_told_ip(context *ctx, const struct packet *p, struct told *t, u8 *protocol,
			 const int v6)
{
	t->ip = p->l4 + sizeof(struct icmp);
	if (v6) {
		struct ipv6 *ip = header(ctx, t->ip, sizeof(*ip));

		if (!ip || !within(p, t->ip, sizeof(*ip)) ||
		    (ip->version_class_label & 0xf0) != 0x60)
			return 0;
		copy(t->source, ip->destination, 16);
		copy(t->destination, ip->source, 16);
		*protocol = ip->next;
		t->l4 = t->ip + sizeof(*ip);
	} else {
		struct ipv4 *ip = header(ctx, t->ip, sizeof(*ip));
		u32 ihl;

		if (!ip || !within(p, t->ip, sizeof(*ip)))
			return 0;
		ihl = (ip->version_ihl & 15) * 4;
		if (ip->version_ihl >> 4 != 4 || ihl < sizeof(*ip) ||
		    ip->fragment & IPV4_OFFSET)
			return 0;
		t->source[0] = ip->destination;
		t->destination[0] = ip->source;
		*protocol = ip->protocol;
		t->l4 = t->ip + ihl;
	}
	return 1;
}

inlined int read_told(context *ctx, const struct packet *p, struct told *t, const int v6)
{
	u8 protocol;
	u32 *words;

	if (!read_told_ip(ctx, p, t, &protocol, v6))
		return 0;
	words = header(ctx, t->l4, 8);
	if (!words || !within(p, t->l4, 8))
		return 0;
	t->kind = kind_of(protocol, v6);
	t->reply = 0;
	if (t->kind == OTHER)
		return 0;
	if (t->kind != ECHO) {
		t->ports = turned(words[0]);
	} else {
		u32 id = words[1] & 0xffff;
		u8 icmp = icmp_of(words[0] & 0xff, v6);

		t->reply = icmp == ICMP_REPLY;
		if (icmp != ICMP_REPLY && icmp != ICMP_REQUEST)
			return 0;
		t->ports = t->reply ? id : id << 16;
	}
	return 1;
}

/* The inner packet becomes what the entry says, turned round again; p's own
 * addresses follow. Gives the difference to the ICMP checksum in *sum. */
inlined int translate_told(context *ctx, const struct packet *p, const struct told *t, u32 *sum,
			   const int v6)
{
	u32 addresses = address_difference(t->source, p->to_source, v6) +
			address_difference(t->destination, p->to_destination, v6);
	u32 ports = t->ports == p->to_ports ? 0 : word_difference(t->ports, p->to_ports);
	u32 back = turned(p->to_ports), *words;

	*sum = ports;
	if (v6) {
		struct ipv6 *ip = header(ctx, t->ip, sizeof(*ip));

		if (!ip)
			return 0;
		copy(ip->source, p->to_destination, 16);
		copy(ip->destination, p->to_source, 16);
		*sum += addresses;
	} else {
		struct ipv4 *ip = header(ctx, t->ip, sizeof(*ip));
		u16 checksum;

		if (!ip)
			return 0;
		ip->source = p->to_destination[0];
		ip->destination = p->to_source[0];
		checksum = adjust(ip->checksum, addresses);
		*sum += addresses + word_difference(ip->checksum, checksum);
		ip->checksum = checksum;
	}
	words = header(ctx, t->l4, 8);
	if (!words)
		return 0;
	if (t->kind == ECHO) {
		/* ICMP in IPv6 covers the addresses, in IPv4 it does not. */
		u32 old = words[0] >> 16, new = adjust(old, ports + (v6 ? addresses : 0));

		*sum += word_difference(old, new);
		words[0] = (words[0] & 0xffff) | new << 16;
		words[1] = (words[1] & 0xffff0000) | ((back | back >> 16) & 0xffff);
	} else {
		words[0] = back;
	}
	if (t->kind == UDP && words[1] >> 16) {
		u32 old = words[1] >> 16, new = adjust(old, addresses + ports);

		if (!new)
			new = 0xffff;
		*sum += word_difference(old, new);
		words[1] = (words[1] & 0xffff) | new << 16;
	}
	return 1;
}

/* An ICMP error through NAT, inside and outside. */
inlined int translate_error(context *ctx, struct packet *p, const struct told *t, const int v6)
{
	struct icmp *icmp;
	u32 sum, outer;

	if (!translate_told(ctx, p, t, &sum, v6))
		return 0;
	/* Whoever is the inner destination is translated outside too; a router is not. */
	if (!address_same(p->source, t->source, v6))
		copy(p->to_source, p->source, v6 ? 16 : 4);
	outer = address_difference(p->source, p->to_source, v6) +
		address_difference(p->destination, p->to_destination, v6);
	if (v6) {
		struct ipv6 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		copy(ip->source, p->to_source, 16);
		copy(ip->destination, p->to_destination, 16);
		sum += outer;
	} else {
		struct ipv4 *ip = header(ctx, ETH_LEN, sizeof(*ip));

		if (!ip)
			return 0;
		ip->source = p->to_source[0];
		ip->destination = p->to_destination[0];
		ip->checksum = adjust(ip->checksum, outer);
	}
	icmp = header(ctx, p->l4, sizeof(*icmp));
	if (!icmp)
		return 0;
	icmp->checksum = adjust(icmp->checksum, sum);
	return 1;
}

inlined int icmp_unknown(void)
{
	count(ICMP_UNKNOWN);
	return DROP;
}

/* The server of an entry, if its flow lives. */
inlined u32 live_server(u32 meta, u32 service_number, const struct service *service, u32 tick)
{
	struct server *server = get_server(meta_server(meta));

	if (!server || server->service != service_number || is_idle(meta, service->idle, tick))
		return 0;
	return meta_server(meta);
}

inlined u32 error_to_plain(const struct packet *p, const struct told *t, u32 service_number,
			   const struct service *service, const struct settings *settings,
			   const int v6)
{
	u32 *entry = find_flow(p->hash, t->source, t->destination, t->ports, t->kind, v6);
	u32 number = 0;

	if (entry)
		number = live_server(read_once(entry[v6 ? 9 : 3]), service_number, service,
				     now(settings));
	if (number)
		return number;
	return by_hash(service, hash_key(t->source, t->destination, t->ports, t->kind,
					 settings->slot_seed, v6));
}

inlined u32 error_to_nat(context *ctx, struct packet *p, const struct told *t, u32 service_number,
			 const struct service *service, const struct settings *settings,
			 const int v6)
{
	u32 *entry = find_nat(p->hash, t->source, t->destination, t->ports, t->kind, v6);
	u32 number;

	if (!entry)
		return 0;
	number = live_server(read_once(entry[NAT_META(v6)]), service_number, service,
			     now(settings));
	if (!number)
		return 0;
	read_translation(entry, p, v6);
	return translate_error(ctx, p, t, v6) ? number : 0;
}

/* The server of an error to a VIP, or 0 to drop it-> */
inlined u32 server_of_error(context *ctx, struct packet *p, const struct vip *vip,
			    struct match *m, const int v6)
{
	struct settings *settings = get_settings();
	struct told *t = &p->told;
	struct service *service;

	if (!settings || !read_told(ctx, p, t, v6) || (t->kind == ECHO && !t->reply) ||
	    !address_same(t->destination, p->destination, v6) ||
	    !match_rule(p, vip, t->kind, swap16(t->ports >> 16), m, v6))
		return 0;
	service = get_service(m->service);
	if (!service)
		return 0;
	count_vip(m->vip, p->length);
	p->dscp = m->dscp;
	p->hash = hash_key(t->source, t->destination, t->ports, t->kind, settings->table_seed, v6);
	if (service->mode == NAT)
		return error_to_nat(ctx, p, t, m->service, service, settings, v6);
	return error_to_plain(p, t, m->service, service, settings, v6);
}

/* An error to no VIP: about a packet that NAT translated. */
inlined int nat_error(context *ctx, struct packet *p, const int v6)
{
	struct settings *settings = get_settings();
	struct told *t = &p->told;
	u32 *entry;
	u64 h;

	if (!settings || !read_told(ctx, p, t, v6) ||
	    !address_same(t->destination, p->destination, v6))
		return not_vip();
	h = hash_key(t->source, t->destination, t->ports, t->kind, settings->table_seed, v6);
	entry = find_nat(h, t->source, t->destination, t->ports, t->kind, v6);
	if (!entry || is_idle(entry[NAT_META(v6)], settings->idle, now(settings)))
		return not_vip();
	read_translation(entry, p, v6);
	count(NAT_REPLY);
	if (!translate_error(ctx, p, t, v6))
		return DROP;
	return send_on(ctx, p, v6);
}
