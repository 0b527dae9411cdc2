/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The little of the kernel's interface that the programs use. Written out, so
 * that the object depends on no header of the machine that builds it. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;

#define SEC(name) __attribute__((section(name), used))
#define inlined static __attribute__((always_inline)) inline
/* For what is rare: keeps it out of the way of the usual packet. */
#define apart static __attribute__((noinline))
/* The same, and verified by itself, so that what calls it is soon verified too.
 * Its pointers may be null, as far as the verifier knows. */
#define verified_apart __attribute__((noinline))

#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_F_MMAPABLE (1U << 10)

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto;
	u32 priority, ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid;
	u32 data, data_end, napi_id, family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4];
	u32 remote_port, local_port, data_meta;
	u64 flow_keys, tstamp;
	u32 wire_len, gso_segs;
	u64 sk;
	u32 gso_size;
};

enum { XDP_DROP = 1, XDP_PASS = 2, XDP_TX = 3, XDP_REDIRECT = 4 };
enum { TC_NEXT = -1, TC_SHOT = 2, TC_REDIRECT = 7 };

struct bpf_fib_lookup {
	u8 family, l4_protocol;
	u16 sport, dport, tot_len;
	u32 ifindex;
	u32 tos;
	u32 source[4], destination[4];
	u16 vlan_proto, vlan_tci;
	u8 smac[6], dmac[6];
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_l4_csum_replace)(void *skb, u32 at, u64 from, u64 to,
					 u64 flags) = (void *)11;
static long (*const bpf_tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const bpf_csum_diff)(u32 *from, u32 from_size, u32 *to, u32 to_size,
				   u32 seed) = (void *)28;
static long (*const bpf_skb_change_tail)(void *skb, u32 len, u64 flags) = (void *)38;
static long (*const bpf_skb_pull_data)(void *skb, u32 len) = (void *)39;
static long (*const bpf_xdp_adjust_head)(void *xdp, int delta) = (void *)44;
static long (*const bpf_skb_adjust_room)(void *skb, int delta, u32 mode, u64 flags) = (void *)50;
static long (*const bpf_xdp_adjust_tail)(void *xdp, int delta) = (void *)65;
static long (*const bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int size,
				    u32 flags) = (void *)69;
static u64 (*const bpf_jiffies64)(void) = (void *)118;

#define BPF_F_INGRESS 1ULL
#define BPF_F_PSEUDO_HDR (1ULL << 4)
#define BPF_F_MARK_MANGLED_0 (1ULL << 5)
#define BPF_ADJ_ROOM_MAC 1
#define ADJ_ROOM_ENCAP_L3_IPV4 (1ULL << 1)
#define ADJ_ROOM_ENCAP_L3_IPV6 (1ULL << 2)
#define ADJ_ROOM_ENCAP_L4_GRE (1ULL << 3)
#define ADJ_ROOM_ENCAP_L4_UDP (1ULL << 4)
#define ADJ_ROOM_ENCAP_L2_ETH (1ULL << 6)
#define ADJ_ROOM_ENCAP_L2(len) ((u64)(len) << 56)
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

#define AF_INET 2
#define AF_INET6 10

#define swap16(x) ((u16)__builtin_bswap16(x))
#define swap32(x) ((u32)__builtin_bswap32(x))
#define copy(to, from, n) __builtin_memcpy(to, from, n)
#define read_once(x) (*(volatile typeof(x) *)&(x))
#define write_once(x, v) (*(volatile typeof(x) *)&(x) = (v))
/* Keeps the compiler from moving memory accesses; x86 and the atomics do the rest. */
#define barrier() asm volatile("" ::: "memory")
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
	ETH_LEN = 14,
	ETH_IPV4 = 0x0008, /* in packet order */
	ETH_IPV6 = 0xdd86,
	IPPROTO_HOPOPTS = 0,
	IPPROTO_ICMP = 1,
	IPPROTO_IPIP = 4,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_IPV6 = 41,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_GRE = 47,
	IPPROTO_ICMPV6 = 58,
	IPPROTO_NONE = 59,
	IPPROTO_DSTOPTS = 60,
	IPPROTO_SCTP = 132,
};

struct eth {
	u8 to[6], from[6];
	u16 type;
};

struct ipv4 {
	u8 version_ihl, tos;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 source, destination;
};

struct ipv6 {
	u32 version_class_label;
	u16 payload;
	u8 next, hops;
	u32 source[4], destination[4];
};

struct tcp {
	u32 ports, sequence, acknowledgement;
	u8 offset, flags;
	u16 window, checksum, urgent;
};

struct udp {
	u16 source, destination, length, checksum;
};

/* Echo: id and sequence; errors: unused and the MTU (ICMPv6: one word of MTU). */
struct icmp {
	u8 type, code;
	u16 checksum, id, sequence;
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };
enum { IPV4_MORE = 0x0020, IPV4_DF = 0x0040, IPV4_OFFSET = 0xff1f }; /* in packet order */
