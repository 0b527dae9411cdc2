/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exact flow tables: two candidate buckets of four entries, found by key,
 * claimed by compare-and-swap. The same code serves four tables; SHAPE names
 * the words of an entry as constants. */
#pragma once
#include "hash.h"
#include "parse.h"

/* Words of an entry, and which of them is `meta`. */
#define FLOW4 4, 3
#define FLOW6 10, 9
#define NAT4 8, 6
#define NAT6 20, 18
#define SHAPE const int entry_words, const int meta_at
#define OF_SHAPE entry_words, meta_at

inlined u32 meta_server(u32 meta)
{
	return meta & 0x7fff;
}

inlined u32 meta_kind(u32 meta)
{
	return (meta >> 15) & 7;
}

inlined u32 meta_state(u32 meta)
{
	return (meta >> 18) & 3;
}

inlined u32 make_meta(u32 server, u32 kind, u32 state, u32 stamp)
{
	return (server & 0x7fff) | kind << 15 | state << 18 | stamp << 20;
}

/* Ticks since it was seen. A packet on another CPU may have seen it after this
 * one asked for the time: what would be that old is new. */
inlined u32 meta_age(u32 meta, u32 now)
{
	u32 age = (now - (meta >> 20)) & 0xfff;

	return age < FUTURE ? age : 0;
}

inlined int is_idle(u32 meta, const u16 *limits, u32 now)
{
	return meta_age(meta, now) > limits[(meta_kind(meta) * 4 + meta_state(meta)) & 31];
}

inlined int compare_and_swap(u32 *word, u32 old, u32 new)
{
	return __sync_val_compare_and_swap(word, old, new) == old;
}

/* The key as an entry holds it. */
inlined void write_key(u32 *words, const u32 *source, const u32 *destination, u32 ports,
		       const int v6)
{
	const int n = v6 ? 4 : 1;

#pragma unroll
	for (int i = 0; i < n; i++) {
		words[i] = source[i];
		words[n + i] = destination[i];
	}
	words[2 * n] = ports;
}

inlined int same_key(const u32 *entry, const u32 *source, const u32 *destination, u32 ports,
		     const int v6)
{
	const int n = v6 ? 4 : 1;

	/* Ports first: they differ most often. */
	if (entry[2 * n] != ports)
		return 0;
#pragma unroll
	for (int i = 0; i < n; i++)
		if (entry[i] != source[i] || entry[n + i] != destination[i])
			return 0;
	return 1;
}

/* The entry of a bucket, or nothing. `meta` is read after the key, so an entry
 * that is written meanwhile is seen as claimed. */
inlined u32 *find_in(u32 *bucket, const u32 *source, const u32 *destination, u32 ports, u32 kind,
		     SHAPE, const int v6)
{
	if (!bucket)
		return 0;
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		u32 *entry = bucket + way * entry_words, meta;

		if (!same_key(entry, source, destination, ports, v6))
			continue;
		barrier();
		meta = read_once(entry[meta_at]);
		if (meta && meta_kind(meta) == kind && meta_state(meta) != CLAIMED)
			return entry;
	}
	return 0;
}

inlined u32 own_slice(void)
{
	return slices > 1 ? bpf_get_smp_processor_id() % slices : 0;
}

/* The two buckets of a key in one slice. Macros, since a map must be named. */
#define FIND_IN_SLICE(map, buckets, slice, h, source, destination, ports, kind, v6, ...)         \
	({                                                                                       \
		u32 base_ = (slice) * buckets;                                                   \
		u32 *entry_ = find_in(at(map, base_ + scale(h, buckets)), source, destination,   \
				      ports, kind, __VA_ARGS__, v6);                             \
		if (!entry_)                                                                     \
			entry_ = find_in(at(map, base_ + scale((h) >> 32, buckets)), source,     \
					 destination, ports, kind, __VA_ARGS__, v6);             \
		entry_;                                                                          \
	})

/* What is looked for in the slices of the other CPUs. */
struct wanted {
	u64 hash;
	u32 source[4], destination[4];
	u32 ports, kind;
	u64 unused[2];
};

/* In a table of this program alone, one for each CPU, since the stack is small. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct wanted);
} wanted SEC(".maps");

inlined struct wanted *want(u64 h, const u32 *source, const u32 *destination, u32 ports,
			    u32 kind, const int v6)
{
	struct wanted *w = at(wanted, bpf_get_smp_processor_id());

	if (!w)
		return 0;
	w->hash = h;
	copy(w->source, source, v6 ? 16 : 4);
	copy(w->destination, destination, v6 ? 16 : 4);
	w->ports = ports;
	w->kind = kind;
	return w;
}

#define FIND_ELSEWHERE(name, map, buckets, v6, ...)                                              \
	apart u32 *name(const struct wanted *w)                                                  \
	{                                                                                        \
		u32 own = own_slice(), *entry = 0;                                               \
                                                                                                 \
		_Pragma("clang loop unroll(disable)")                                            \
		for (u32 s = 0; s < MAX_SLICES && s < slices && !entry; s++)                     \
			if (s != own)                                                            \
				entry = FIND_IN_SLICE(map, buckets, s, w->hash, w->source,       \
						      w->destination, w->ports, w->kind, v6,     \
						      __VA_ARGS__);                              \
		return entry;                                                                    \
	}
FIND_ELSEWHERE(find_flow4_elsewhere, flows4, buckets4, 0, FLOW4)
FIND_ELSEWHERE(find_flow6_elsewhere, flows6, buckets6, 1, FLOW6)
FIND_ELSEWHERE(find_nat4_elsewhere, nats4, nat_buckets4, 0, NAT4)
FIND_ELSEWHERE(find_nat6_elsewhere, nats6, nat_buckets6, 1, NAT6)

#define FIND(map, buckets, elsewhere, v6, ...)                                                   \
	({                                                                                       \
		u32 *found_ = FIND_IN_SLICE(map, buckets, own_slice(), h, source, destination,   \
					    ports, kind, v6, __VA_ARGS__);                       \
		if (!found_ && slices > 1) {                                                     \
			struct wanted *wanted_ = want(h, source, destination, ports, kind, v6);          \
			if (wanted_)                                                             \
				found_ = elsewhere(wanted_);                                            \
		}                                                                                \
		found_;                                                                          \
	})

/* Finds a flow, in the own slice first. */
inlined u32 *find_flow(u64 h, const u32 *source, const u32 *destination, u32 ports, u32 kind,
		       const int v6)
{
	if (v6)
		return FIND(flows6, buckets6, find_flow6_elsewhere, 1, FLOW6);
	return FIND(flows4, buckets4, find_flow4_elsewhere, 0, FLOW4);
}

inlined u32 *find_nat(u64 h, const u32 *source, const u32 *destination, u32 ports, u32 kind,
		      const int v6)
{
	if (v6)
		return FIND(nats6, nat_buckets6, find_nat6_elsewhere, 1, NAT6);
	return FIND(nats4, nat_buckets4, find_nat4_elsewhere, 0, NAT4);
}

inlined void add_load(u32 server, u32 service, u64 by)
{
	u64 *load = at(loads, server);
	struct turn *turn = at(turns, service);

	if (load)
		__sync_fetch_and_add(load, by);
	if (turn)
		__sync_fetch_and_add(&turn->flows, by);
}

/* The flow of an entry is over, or the entry is about to be another's. */
verified_apart int give_back(u32 meta)
{
	struct server *server;

	if (meta_kind(meta) > OTHER || meta_state(meta) > ESTABLISHED)
		return 0;
	server = at(servers, meta_server(meta));
	if (server)
		add_load(meta_server(meta), server->service, -1ULL);
	return 0;
}

/* Claims an entry that is free, idle or about to be overwritten. */
inlined int claim(u32 *entry, u32 meta, SHAPE)
{
	if (!compare_and_swap(&entry[meta_at], meta, make_meta(0, 0, CLAIMED, 0) | 1))
		return 0;
	/* Replies of NAT carry no load. */
	if (meta && (entry_words == 4 || entry_words == 10 || !(entry[entry_words - 1] >> 31)))
		give_back(meta);
	return 1;
}

inlined u32 *take_in(u32 *bucket, const u16 *limits, u32 now, SHAPE)
{
	if (!bucket)
		return 0;
#pragma clang loop unroll(disable)
	for (int way = 0; way < WAYS; way++) {
		u32 *entry = bucket + way * entry_words;
		u32 meta = read_once(entry[meta_at]);

		if (meta && (meta_state(meta) == CLAIMED || !is_idle(meta, limits, now)))
			continue;
		if (claim(entry, meta, OF_SHAPE))
			return entry;
	}
	return 0;
}

/* A claimed place for a new entry, or nothing. */
#define TAKE(map, buckets, h, limits, now, ...)                                                 \
	({                                                                                      \
		u32 own_ = own_slice();                                                         \
		u32 *entry_ = take_in(at(map, own_ * buckets + scale(h, buckets)), limits, now, \
				      __VA_ARGS__);                                             \
		if (!entry_)                                                                    \
			entry_ = take_in(at(map, own_ * buckets + scale((h) >> 32, buckets)),   \
					 limits, now, __VA_ARGS__);                             \
		entry_;                                                                         \
	})

apart u32 *take_flow4(u64 h, const u16 *limits, u32 now)
{
	return TAKE(flows4, buckets4, h, limits, now, FLOW4);
}

apart u32 *take_flow6(u64 h, const u16 *limits, u32 now)
{
	return TAKE(flows6, buckets6, h, limits, now, FLOW6);
}

apart u32 *take_nat4(u64 h, const u16 *limits, u32 now)
{
	return TAKE(nats4, nat_buckets4, h, limits, now, NAT4);
}

apart u32 *take_nat6(u64 h, const u16 *limits, u32 now)
{
	return TAKE(nats6, nat_buckets6, h, limits, now, NAT6);
}

inlined u32 *take_flow(u64 h, const u16 *limits, u32 now, const int v6)
{
	return v6 ? take_flow6(h, limits, now) : take_flow4(h, limits, now);
}

inlined u32 *take_nat(u64 h, const u16 *limits, u32 now, const int v6)
{
	return v6 ? take_nat6(h, limits, now) : take_nat4(h, limits, now);
}

inlined void publish(u32 *meta_word, u32 meta)
{
	barrier();
	write_once(*meta_word, meta);
}

/* What `meta` becomes by a packet of a known flow. */
inlined u32 touched(u32 meta, const struct packet *p, u32 now)
{
	u32 state = meta_state(meta);

	if (p->last)
		state = CLOSING;
	else if (state == OPENING && !p->first)
		state = ESTABLISHED;
	return (meta & 0x3ffff) | state << 18 | now << 20;
}

/* Gives 1 when it changed the word; then a flow that ended has given back its load. */
inlined int touch(u32 *meta_word, u32 meta, u32 new, int has_load)
{
	if (likely(meta == new) || !compare_and_swap(meta_word, meta, new))
		return 0;
	if (has_load && meta_state(new) == CLOSING)
		give_back(meta);
	return 1;
}

inlined u32 first_state(const struct packet *p)
{
	if (p->last)
		return CLOSING;
	return p->first || (p->kind != TCP && p->kind != SCTP) ? OPENING : ESTABLISHED;
}

/* Whether this CPU may store one more flow in this tick; counts it. */
inlined int within_budget(const struct settings *settings, u32 now)
{
	struct cpu_state *cpu = at(cpus, bpf_get_smp_processor_id());

	if (!cpu)
		return 0;
	if (cpu->tick != now) {
		cpu->tick = now;
		cpu->stored = 0;
	}
	if (settings->budget && cpu->stored >= settings->budget)
		return 0;
	cpu->stored++;
	return 1;
}

/* An AFFINITY, FRAGMENT or HINT: no packet's flow, so no load and no budget. */
inlined int store_note(struct wanted *w, u32 server, const int v6)
{
	struct settings *settings = get_settings();
	u32 *entry, meta, tick;

	if (!settings)
		return 0;
	tick = now(settings);
	meta = make_meta(server, w->kind, ESTABLISHED, tick);
	w->hash = hash_key(w->source, w->destination, w->ports, w->kind, settings->table_seed, v6);
	entry = find_flow(w->hash, w->source, w->destination, w->ports, w->kind, v6);
	if (entry) {
		write_once(entry[v6 ? 9 : 3], meta);
		return 0;
	}
	entry = take_flow(w->hash, settings->idle, tick, v6);
	if (!entry)
		return 0;
	write_key(entry, w->source, w->destination, w->ports, v6);
	publish(&entry[v6 ? 9 : 3], meta);
	return 0;
}

verified_apart int store_note4(struct wanted *w, u32 server)
{
	if (!w)
		return 0;
	return store_note(w, server, 0);
}

verified_apart int store_note6(struct wanted *w, u32 server)
{
	if (!w)
		return 0;
	return store_note(w, server, 1);
}

inlined void remember(const u32 *source, const u32 *destination, u32 ports, u32 kind, u32 server,
		      const int v6)
{
	struct wanted *w = want(0, source, destination, ports, kind, v6);

	if (!w)
		return;
	if (v6)
		store_note6(w, server);
	else
		store_note4(w, server);
}

inlined u32 read_note(struct wanted *w, u32 limit, const int v6)
{
	struct settings *settings = get_settings();
	u32 *entry, meta;

	if (!settings)
		return 0;
	w->hash = hash_key(w->source, w->destination, w->ports, w->kind, settings->table_seed, v6);
	entry = find_flow(w->hash, w->source, w->destination, w->ports, w->kind, v6);
	if (!entry)
		return 0;
	meta = read_once(entry[v6 ? 9 : 3]);
	return meta_age(meta, now(settings)) > limit ? 0 : meta_server(meta);
}

verified_apart u32 read_note4(struct wanted *w, u32 limit)
{
	if (!w)
		return 0;
	return read_note(w, limit, 0);
}

verified_apart u32 read_note6(struct wanted *w, u32 limit)
{
	if (!w)
		return 0;
	return read_note(w, limit, 1);
}

/* The server of such an entry, 0 when unknown or idle by the limit. */
inlined u32 recall(const u32 *source, const u32 *destination, u32 ports, u32 kind, u32 limit,
		   const int v6)
{
	struct wanted *w = want(0, source, destination, ports, kind, v6);

	if (!w)
		return 0;
	return v6 ? read_note6(w, limit) : read_note4(w, limit);
}
