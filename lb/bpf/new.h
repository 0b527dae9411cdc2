/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* New flows: chosen, stored, journalled. */
#pragma once
#include "nat.h"
#include "vip.h"

inlined void write_journal(const struct packet *p, const struct match *m, u32 meta, const int v6)
{
	u32 number = bpf_get_smp_processor_id();
	struct cpu_state *cpu = at(cpus, number);
	struct journal_record *record;
	u64 sequence;

	if (!cpu || !journal_count)
		return;
	sequence = cpu->journal + 1;
	record = at(journal, number * journal_count + (u32)((sequence - 1) % journal_count));
	if (!record)
		return;
	write_once(record->sequence, 0);
	barrier();
	record->family = v6 ? 6 : 4;
	record->kind = p->kind;
	record->service = m->service;
	record->server = meta_server(meta);
	record->vip = m->vip;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		record->source[i] = v6 || !i ? p->source[i] : 0;
		record->destination[i] = v6 || !i ? p->destination[i] : 0;
	}
	record->ports = p->ports;
	record->meta = meta;
	barrier();
	write_once(record->sequence, sequence);
	write_once(cpu->journal, sequence);
}

inlined void count_new(const struct match *m, u32 server)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct row *vip_row = at(vip_counters, cpu * vips_count + m->vip);
	struct row *server_row = at(server_counters, cpu * servers_count + server);

	count(NEW_FLOW);
	if (vip_row)
		vip_row->flows++;
	if (server_row)
		server_row->flows++;
}

/* The entry of a new flow; `known` is the one to overwrite. */
inlined int store_flow(struct packet *p, const struct settings *settings, u32 *known, u32 meta,
		       u32 tick, const int v6)
{
	const int meta_at = v6 ? 9 : 3;
	u32 *entry = known;

	if (known) {
		if (!claim(known, known[meta_at], v6 ? 10 : 4, meta_at))
			return 0;
	} else {
		entry = take_flow(p->hash, settings->idle, tick, v6);
		if (!entry)
			return 0;
	}
	write_key(entry, p->source, p->destination, p->ports, v6);
	publish(&entry[meta_at], meta);
	return 1;
}

/* The server of a new flow: 0 drops the packet, -1 is a service without servers.
 * `forced` is the server its fragments already went to, or 0. */
inlined int new_flow(struct packet *p, const struct match *m, u32 *known, u32 forced,
		     const int is_nat, const int v6)
{
	struct settings *settings = get_settings();
	struct service *service = get_service(m->service);
	u32 tick, choice = forced, decided = forced, meta;
	u64 h;

	if (!settings || !service)
		return 0;
	if (!service->slots_count)
		return -1;
	tick = now(settings);
	h = hash_key(p->source, p->destination, p->ports, p->kind, settings->slot_seed, v6);
	if (!within_budget(settings, tick)) {
		count(FLOOD);
		if (!is_nat)
			return forced ? forced : by_hash(service, h);
		count(NAT_NO_ROOM);
		return 0;
	}
	if (!choice) {
		if ((p->kind == TCP || p->kind == SCTP) && !p->first) {
			count(UNKNOWN);
			choice = by_hash(service, h);
		} else if (service->affinity) {
			u32 name[4] = { m->service };

			choice = decided = by_affinity(service, m->service, p->source, v6);
			if (decided)
				count(BY_AFFINITY);
			else
				choice = by_policy(service, m->service, p->source, h,
						   settings->slot_seed, v6);
			remember(p->source, name, 0, AFFINITY, choice, v6);
		} else {
			choice = by_policy(service, m->service, p->source, h, settings->slot_seed,
					   v6);
		}
	}
	meta = make_meta(choice, p->kind, first_state(p), tick);
	if (is_nat) {
		struct server *server = get_server(choice);
		int why = server ? new_nat(p, service, m->service, server, choice, m->vip, known,
					   v6) :
				   INTERNAL;

		if (why >= 0) {
			count(why);
			return 0;
		}
	} else if (!store_flow(p, settings, known, meta, tick, v6)) {
		count(FULL);
		return decided ? decided : by_hash(service, h);
	}
	count_new(m, choice);
	if (first_state(p) != CLOSING)
		add_load(choice, m->service, 1);
	if (settings->flags & SETTING_JOURNAL)
		write_journal(p, m, meta, v6);
	return choice;
}

verified_apart int new_flow4(struct packet *p, const struct match *m, struct flow_entry4 *known,
			     u32 forced)
{
	if (!p || !m)
		return 0;
	return new_flow(p, m, known ? known->w : 0, forced, 0, 0);
}

verified_apart int new_flow6(struct packet *p, const struct match *m, struct flow_entry6 *known,
			     u32 forced)
{
	if (!p || !m)
		return 0;
	return new_flow(p, m, known ? known->w : 0, forced, 0, 1);
}

verified_apart int new_nat_flow4(struct packet *p, const struct match *m, struct nat_entry4 *known,
			     u32 forced)
{
	if (!p || !m)
		return 0;
	return new_flow(p, m, known ? known->w : 0, forced, 1, 0);
}

verified_apart int new_nat_flow6(struct packet *p, const struct match *m, struct nat_entry6 *known,
			     u32 forced)
{
	if (!p || !m)
		return 0;
	return new_flow(p, m, known ? known->w : 0, forced, 1, 1);
}
