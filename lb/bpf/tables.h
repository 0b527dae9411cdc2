/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tables shared with control; offsets as in lb/src/tables. */
#pragma once
#include "kernel.h"

enum { L2, GRE, IPIP, GUE, VXLAN, L3DSR, NAT };
enum { ROUND_ROBIN, LEAST, HASH, SOURCE, SPILL };
enum { TCP, UDP, SCTP, ECHO, OTHER, AFFINITY, FRAGMENT, HINT };
enum { OPENING, ESTABLISHED, CLOSING, CLAIMED };
enum { REFUSE_PASS, REFUSE_REJECT, REFUSE_DROP };
enum { SNAT_NEVER, SNAT_NEEDED, SNAT_ALWAYS };
enum { SETTING_NAT = 1, SETTING_JOURNAL = 2 };
enum { ADDRESS_ANSWER_ECHO = 1, ADDRESS_NEAR = 2 };
enum { SERVER_IN_USE = 1, SERVER_V6 = 2, SERVER_HAS_KEY = 4 };
enum { WAYS = 4, VERSIONS = 4, MAX_LENGTHS = 8, MAX_RULES = 64, MAX_SLICES = 8, FUTURE = 4064 };

enum reason {
	NOT_IP, NOT_VIP, UNPARSED, MALFORMED, OTHER_PORT, NO_SERVER, REJECTED, DROPPED,
	NEW_FLOW, FLOOD, FULL, UNKNOWN, MOVED, FRAGMENTS, FRAGMENT_EARLY, FRAGMENT_SPLIT,
	ICMP_ERROR, ICMP_UNKNOWN, ICMP_OTHER, ECHO_ANSWERED, TOO_BIG, TOO_BIG_PASSED,
	UNRESOLVED, NAT_REPLY, NAT_NO_PORT, NAT_NO_ROOM, SPILLED, BY_AFFINITY, INTERNAL,
};

struct view {
	u64 seed;
	u8 count4, count6;
	u8 lengths4[8], lengths6[8];
	u8 unused[38];
};

struct settings {
	u32 active, flags;
	u64 table_seed, slot_seed;
	u32 clock, tick_shift, budget;
	u16 port_low, port_high;
	u32 source4, unused0;
	u32 source6[4];
	u16 idle[32];
	struct view views[2];
	u8 mac[6];
	u8 unused1[58];
};

struct vip4 {
	u32 address;
	u8 length, used, other, flags;
	u32 first, count;
};

struct vip6 {
	u32 address[4];
	u8 length, used, other, flags;
	u32 first, count, unused;
};

struct rule {
	u8 kinds, dscp;
	u16 low, high, service, vip;
	u8 unused0[6];
	u64 identity, unused1;
};

struct service {
	u8 mode, policy, on_empty, snat;
	u16 port;
	u8 used, unused0;
	u32 slots_base, slots_count, ring_base, ring_count, total_weight;
	u16 spill_above, spill_factor, affinity, unused1;
	u32 sources_base, sources4, sources6;
	u16 idle[32];
	u64 identity, unused2;
};

struct server {
	u8 flags, unused0;
	u16 service, port, weight;
	u32 address[4];
	u64 hop_mac, hop_source; /* six bytes each; one word, so that they change at once */
	u32 ifindex, key;
	u8 mac[6];
	u16 mtu;
	u64 identity;
};

struct turn {
	u64 cursor, flows;
	u64 unused[6];
};

struct row {
	u64 packets, bytes, flows, unused;
};

struct cpu_state {
	u32 tick, stored;
	u64 journal;
	u64 unused[6];
};

struct journal_record {
	u64 sequence;
	u8 family, kind;
	u16 service, server, vip;
	u32 source[4], destination[4];
	u32 ports, meta;
	u64 unused;
};

_Static_assert(sizeof(struct settings) == 320, "settings");
_Static_assert(sizeof(struct vip4) == 16 && sizeof(struct vip6) == 32, "vips");
_Static_assert(sizeof(struct rule) == 32, "rule");
_Static_assert(sizeof(struct service) == 128, "service");
_Static_assert(sizeof(struct server) == 64, "server");
_Static_assert(sizeof(struct journal_record) == 64, "journal");

/* Entries, for functions that are verified by themselves. */
struct flow_entry4 { u32 w[4]; };
struct flow_entry6 { u32 w[10]; };
struct nat_entry4 { u32 w[8]; };
struct nat_entry6 { u32 w[20]; };

struct bucket4 { u32 w[WAYS * 4]; };
struct bucket6 { u32 w[WAYS * 10]; };
struct nat_bucket4 { u32 w[WAYS * 8]; };
struct nat_bucket6 { u32 w[WAYS * 20]; };
struct vip_bucket4 { struct vip4 vips[4]; };
struct vip_bucket6 { struct vip6 vips[2]; };
struct slot_row { u16 slots[32]; };
struct counter_row { u64 counts[64]; };
struct address_row { u32 w[4]; };

/* All are made larger when the program is loaded. Mapped memory lets control
 * write them without a system call and with the same atomics as here. */
#define TABLE(name, value_type)                        \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__uint(max_entries, 1);                \
		__uint(map_flags, BPF_F_MMAPABLE);     \
		__type(key, u32);                      \
		__type(value, value_type);             \
	} name SEC(".maps")

TABLE(settings, struct settings);
TABLE(vips4, struct vip_bucket4);
TABLE(vips6, struct vip_bucket6);
TABLE(rules, struct rule);
TABLE(generations, u64);
TABLE(services, struct service);
TABLE(slots, struct slot_row);
TABLE(servers, struct server);
TABLE(sources, struct address_row);
TABLE(loads, u64);
TABLE(turns, struct turn);
TABLE(flows4, struct bucket4);
TABLE(flows6, struct bucket6);
TABLE(nats4, struct nat_bucket4);
TABLE(nats6, struct nat_bucket6);
TABLE(counters, struct counter_row);
TABLE(vip_counters, struct row);
TABLE(server_counters, struct row);
TABLE(cpus, struct cpu_state);
TABLE(journal, struct journal_record);

/* Read-only once loaded, so the verifier knows them as constants. */
const volatile u32 slices = 1;
const volatile u32 buckets4 = 1;
const volatile u32 buckets6 = 1;
const volatile u32 nat_buckets4 = 1;
const volatile u32 nat_buckets6 = 1;
const volatile u32 vip_buckets = 1;
const volatile u32 rules_count = 1;
const volatile u32 vips_count = 1;
const volatile u32 servers_count = 1;
const volatile u32 journal_count = 1;
const volatile u32 fixed_clock = 0;

#define at(map, number)                                \
	({                                             \
		u32 number_ = (number);                \
		bpf_map_lookup_elem(&(map), &number_); \
	})

inlined void count(enum reason reason)
{
	struct counter_row *row = at(counters, bpf_get_smp_processor_id());

	if (row)
		row->counts[reason]++;
}

inlined struct settings *get_settings(void)
{
	return at(settings, 0);
}

inlined u32 now(const struct settings *settings)
{
	if (fixed_clock)
		return settings->clock & 0xfff;
	return (bpf_jiffies64() >> (settings->tick_shift & 63)) & 0xfff;
}

/* The version of a service that holds now. */
inlined struct service *get_service(u32 number)
{
	u64 *generation = at(generations, number);
	struct service *service;

	if (!generation)
		return 0;
	service = at(services, number * VERSIONS + (read_once(*generation) & (VERSIONS - 1)));
	return service && service->used ? service : 0;
}

/* A server in use, or nothing. */
inlined struct server *get_server(u32 number)
{
	struct server *server = at(servers, number);

	return server && server->flags & SERVER_IN_USE ? server : 0;
}

inlined void count_vip(u32 vip, u32 bytes)
{
	struct row *row = at(vip_counters, bpf_get_smp_processor_id() * vips_count + vip);

	if (row) {
		row->packets++;
		row->bytes += bytes;
	}
}

inlined void count_server(u32 server, u32 bytes)
{
	struct row *row = at(server_counters, bpf_get_smp_processor_id() * servers_count + server);

	if (row) {
		row->packets++;
		row->bytes += bytes;
	}
}
