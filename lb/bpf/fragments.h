/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fragments: all of a datagram to one server, in whatever order they come. */
#pragma once
#include "new.h"

inlined u16 memo_limit(const struct settings *settings, u32 kind)
{
	return settings->idle[kind * 4 + ESTABLISHED];
}

/* The server this datagram's fragments go to, if that still serves. */
inlined u32 datagram_server(const struct packet *p, const struct settings *settings, u32 kind,
			    const int v6)
{
	u32 word = kind == HINT ? p->protocol : fragment_word(p, v6);
	u32 number = recall(p->source, p->destination, word, kind, memo_limit(settings, kind), v6);

	return number && get_server(number) ? number : 0;
}

inlined u32 server_of_datagram(const struct packet *p, u32 service, const int v6)
{
	struct settings *settings = get_settings();
	u32 number = settings ? datagram_server(p, settings, FRAGMENT, v6) : 0;
	struct server *server = number ? get_server(number) : 0;

	return server && server->service == service ? number : 0;
}

/* Told by a first fragment: where the datagram goes, and where its flow is. */
inlined void remember_datagram(const struct packet *p, u32 datagram, u32 flow, const int v6)
{
	remember(p->source, p->destination, fragment_word(p, v6), FRAGMENT, datagram, v6);
	remember(p->source, p->destination, p->protocol, HINT, flow, v6);
}

enum { NO_RULE = -2, NO_SERVERS = -1 };

/* The server of a fragment without ports; 0 drops it. */
inlined int later_fragment(struct packet *p, const struct vip *vip, struct match *m, const int v6)
{
	struct settings *settings = get_settings();
	struct service *service;
	struct server *server;
	u32 number;
	int rule, snat;

	if (!settings)
		return 0;
	p->hash = hash_key(p->source, p->destination, p->protocol, HINT, settings->table_seed, v6);
	rule = match_rule(p, vip, p->kind, ANY_PORT, m, v6);
	p->dscp = rule ? m->dscp : 0;
	number = datagram_server(p, settings, FRAGMENT, v6);
	if (!number) {
		count(FRAGMENT_EARLY);
		number = datagram_server(p, settings, HINT, v6);
		if (!number) {
			if (!rule)
				return NO_RULE;
			service = get_service(m->service);
			if (!service)
				return 0;
			if (!service->slots_count) {
				count_vip(m->vip, p->length);
				return NO_SERVERS;
			}
			number = by_hash(service, hash_key(p->source, p->destination, p->protocol,
							   HINT, settings->slot_seed, v6));
		}
		remember(p->source, p->destination, fragment_word(p, v6), FRAGMENT, number, v6);
	}
	if (rule)
		count_vip(m->vip, p->length);
	server = get_server(number);
	if (!server)
		return 0;
	m->service = server->service;
	service = get_service(m->service);
	if (!service)
		return 0;
	if (service->mode == NAT && !plan_translation(p, service, server, settings, &snat, v6)) {
		count(NAT_NO_PORT);
		return -3;
	}
	return number;
}
