/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which server a new flow goes to. */
#pragma once
#include "flow.h"

inlined u32 slot(u32 number)
{
	struct slot_row *row = at(slots, number / 32);

	return row ? row->slots[number % 32] : 0;
}

inlined u32 by_hash(const struct service *service, u64 h)
{
	if (!service->slots_count)
		return 0;
	return slot(service->slots_base + scale(h, service->slots_count));
}

/* The next of the ring: one shared turn, so that the ring is even over all CPUs. */
inlined u32 by_turn(const struct service *service, u32 service_number)
{
	struct turn *turn = at(turns, service_number);

	if (!turn || !service->ring_count)
		return 0;
	return slot(service->ring_base +
		    __sync_fetch_and_add(&turn->cursor, 1) % service->ring_count);
}

inlined u64 load_of(u32 server)
{
	u64 *load = at(loads, server);

	return load ? read_once(*load) : 0;
}

inlined u64 weight_of(u32 server)
{
	struct server *s = at(servers, server);

	return s ? s->weight : 0;
}

inlined u32 least_of_two(const struct service *service, u32 service_number, u64 h)
{
	u32 a = by_turn(service, service_number);
	u32 b = slot(service->ring_base + scale(h >> 32, service->ring_count));

	return load_of(b) * weight_of(a) < load_of(a) * weight_of(b) ? b : a;
}

inlined int is_over(const struct service *service, u32 server, u64 flows)
{
	u64 total = service->total_weight;

	return flows && load_of(server) * total * 256 >=
				flows * weight_of(server) * service->spill_factor +
					service->spill_above * total * 256;
}

inlined u32 spill(const struct service *service, u32 service_number, u64 h)
{
	u32 hashed = by_hash(service, h);
	struct turn *turn = at(turns, service_number);
	u64 flows = turn ? read_once(turn->flows) : 0;

	if (!is_over(service, hashed, flows))
		return hashed;
	count(SPILLED);
#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++) {
		u32 server = by_turn(service, service_number);

		if (!is_over(service, server, flows))
			return server;
	}
	return hashed;
}

inlined u32 by_policy(const struct service *service, u32 service_number, const u32 *source, u64 h,
		      u64 seed, const int v6)
{
	u8 policy = service->policy;

	if (policy == SOURCE)
		return by_hash(service, hash_source(source, seed, AFFINITY, v6));
	if (policy == HASH || !service->ring_count)
		return by_hash(service, h);
	if (policy == LEAST)
		return least_of_two(service, service_number, h);
	if (policy == SPILL)
		return spill(service, service_number, h);
	return by_turn(service, service_number);
}

/* The server of the client, while it takes new flows of the service. */
inlined u32 by_affinity(const struct service *service, u32 service_number, const u32 *source,
			const int v6)
{
	u32 name[4] = { service_number };
	u32 number = recall(source, name, 0, AFFINITY, service->affinity, v6);
	struct server *server = number ? get_server(number) : 0;

	return server && server->weight && server->service == service_number ? number : 0;
}
