/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The load balancer: a packet's way from the wire to its server. Built for
 * XDP, and with HOOK_TC for TC. docs/load-balancer.md says what it does. */
#include "fragments.h"
#include "icmp.h"
#include "new.h"

/* What the rare paths give: a server's number, or a verdict. */
#define FINAL(verdict) (0x10000 | ((verdict) & 0xff))
#define IS_FINAL(result) ((result) & 0x10000)
#define VERDICT(result) ((int)(signed char)((result) & 0xff))

/* What is known of the packet under way. In a table of this program alone, one
 * for each CPU, since the stack is small. */
struct scratch {
	struct packet packet;
	struct vip vip;
	struct match match;
	u8 unused[256 - sizeof(struct packet) - sizeof(struct vip) - sizeof(struct match)];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

inlined int internal(void)
{
	count(INTERNAL);
	return DROP;
}

/* No rule takes the packet. */
inlined int refuse_port(context *ctx, struct packet *p, const struct vip *vip, const int v6)
{
	if (p->icmp == ICMP_REQUEST && vip->flags & ADDRESS_ANSWER_ECHO && p->fragment == WHOLE)
		return answer_echo(ctx, p, v6);
	count(OTHER_PORT);
	return refuse(ctx, p, vip->other, v6);
}

verified_apart int refuse_port4(context *ctx, struct packet *p, const struct vip *vip)
{
	if (!p || !vip)
		return DROP;
	return refuse_port(ctx, p, vip, 0);
}

verified_apart int refuse_port6(context *ctx, struct packet *p, const struct vip *vip)
{
	if (!p || !vip)
		return DROP;
	return refuse_port(ctx, p, vip, 1);
}

/* The service has no servers. */
inlined int refuse_empty(context *ctx, struct packet *p, u32 number, const int v6)
{
	struct service *service = get_service(number);

	if (!service)
		return internal();
	count(NO_SERVER);
	return refuse(ctx, p, service->on_empty, v6);
}

verified_apart int refuse_empty4(context *ctx, struct packet *p, u32 service)
{
	if (!p)
		return DROP;
	return refuse_empty(ctx, p, service, 0);
}

verified_apart int refuse_empty6(context *ctx, struct packet *p, u32 service)
{
	if (!p)
		return DROP;
	return refuse_empty(ctx, p, service, 1);
}

verified_apart u32 error4(context *ctx, struct packet *p, const struct vip *vip, struct match *m)
{
	return p && vip && m ? server_of_error(ctx, p, vip, m, 0) : 0;
}

verified_apart u32 error6(context *ctx, struct packet *p, const struct vip *vip, struct match *m)
{
	return p && vip && m ? server_of_error(ctx, p, vip, m, 1) : 0;
}

verified_apart int later_fragment4(struct packet *p, const struct vip *vip, struct match *m)
{
	return p && vip && m ? later_fragment(p, vip, m, 0) : 0;
}

verified_apart int later_fragment6(struct packet *p, const struct vip *vip, struct match *m)
{
	return p && vip && m ? later_fragment(p, vip, m, 1) : 0;
}

/* All ICMP but echo requests. */
inlined u32 other_icmp(context *ctx, struct packet *p, const struct vip *vip, struct match *m,
		       const int v6)
{
	u32 number;

	if (p->icmp != ICMP_IS_ERROR) {
		count(ICMP_OTHER);
		return FINAL(PASS);
	}
	number = v6 ? error6(ctx, p, vip, m) : error4(ctx, p, vip, m);
	if (!number)
		return FINAL(icmp_unknown());
	count(ICMP_ERROR);
	return number;
}

/* Fragments but the first. */
inlined u32 other_fragment(context *ctx, struct packet *p, const struct vip *vip,
			   struct match *m, const int v6)
{
	int number = v6 ? later_fragment6(p, vip, m) : later_fragment4(p, vip, m);

	if (number > 0)
		return number;
	if (number == NO_RULE)
		return FINAL(v6 ? refuse_port6(ctx, p, vip) : refuse_port4(ctx, p, vip));
	if (number == NO_SERVERS)
		return FINAL(v6 ? refuse_empty6(ctx, p, m->service) :
				  refuse_empty4(ctx, p, m->service));
	return FINAL(number ? DROP : internal());
}

verified_apart int nat_reply4(context *ctx, struct packet *p)
{
	return p ? nat_reply(ctx, p, 0) : DROP;
}

verified_apart int nat_reply6(context *ctx, struct packet *p)
{
	return p ? nat_reply(ctx, p, 1) : DROP;
}

verified_apart int nat_error4(context *ctx, struct packet *p)
{
	return p ? nat_error(ctx, p, 0) : DROP;
}

verified_apart int nat_error6(context *ctx, struct packet *p)
{
	return p ? nat_error(ctx, p, 1) : DROP;
}

/* Only NAT looks at packets to others. */
inlined int no_vip(context *ctx, struct packet *p, const int v6)
{
	struct settings *settings = get_settings();

	if (likely(!settings || !(settings->flags & SETTING_NAT)))
		return not_vip();
	if (!parse_transport(ctx, p, v6))
		return not_vip();
	if (p->icmp == ICMP_IS_ERROR)
		return v6 ? nat_error6(ctx, p) : nat_error4(ctx, p);
	return v6 ? nat_reply6(ctx, p) : nat_reply4(ctx, p);
}

verified_apart u32 server_of_datagram4(const struct packet *p, u32 service)
{
	if (!p)
		return 0;
	return server_of_datagram(p, service, 0);
}

verified_apart u32 server_of_datagram6(const struct packet *p, u32 service)
{
	if (!p)
		return 0;
	return server_of_datagram(p, service, 1);
}

verified_apart int remember_datagram4(const struct packet *p, u32 datagram, u32 flow)
{
	if (!p)
		return 0;
	remember_datagram(p, datagram, flow, 0);
	return 0;
}

verified_apart int remember_datagram6(const struct packet *p, u32 datagram, u32 flow)
{
	if (!p)
		return 0;
	remember_datagram(p, datagram, flow, 1);
	return 0;
}

/* The last step: to the server, as the service's mode says. */
inlined int forward(context *ctx, struct packet *p, const struct service *service,
		    const struct server *server, u32 number, const int v6)
{
	u8 mode = service->mode;

	count_server(number, p->length);
	if (mode == L2)
		return l2(ctx, server, v6);
	if (mode == NAT) {
		if (p->icmp != ICMP_IS_ERROR && !translate(ctx, p, v6))
			return internal();
		return to_server(ctx, server, p->to_source, p->to_destination, v6);
	}
	if (mode == L3DSR)
		return l3dsr(ctx, p, server, v6);
	return through_tunnel(ctx, p, service, server, v6);
}

/* Whether the flow of an entry still goes where the entry says. */
inlined int is_known(const struct packet *p, const struct match *m, const struct service *service,
		     u32 meta, u32 tick)
{
	struct server *server = get_server(meta_server(meta));

	if (unlikely(!server || server->service != m->service)) {
		count(MOVED);
		return 0;
	}
	return !is_idle(meta, service->idle, tick) && !(p->first && meta_state(meta) == CLOSING);
}

/* The server of a translated flow, known or new; 0 and -1 as new_flow. */
inlined u32 server_of_nat(struct packet *p, const struct match *m, const struct service *service,
			  u32 tick, u32 datagram, const int v6)
{
	u32 *entry = find_nat(p->hash, p->source, p->destination, p->ports, p->kind, v6);
	u32 meta, new;

	if (!entry)
		goto new;
	meta = read_once(entry[NAT_META(v6)]);
	if (unlikely(!is_known(p, m, service, meta, tick)))
		goto new;
	read_translation(entry, p, v6);
	new = touched(meta, p, tick);
	if (touch(&entry[NAT_META(v6)], meta, new, 1)) {
		if (v6)
			touch_other6(p, new);
		else
			touch_other4(p, new);
	}
	return meta_server(meta);
new:
	return v6 ? new_nat_flow6(p, m, (void *)entry, datagram) :
		    new_nat_flow4(p, m, (void *)entry, datagram);
}

/* The server of a flow that is not translated. */
inlined u32 server_of_plain(struct packet *p, const struct match *m, const struct service *service,
			    u32 tick, u32 datagram, const int v6)
{
	const int meta_at = v6 ? 9 : 3;
	u32 *entry = find_flow(p->hash, p->source, p->destination, p->ports, p->kind, v6);
	u32 meta;

	if (!entry)
		goto new;
	meta = read_once(entry[meta_at]);
	if (unlikely(!is_known(p, m, service, meta, tick)))
		goto new;
	touch(&entry[meta_at], meta, touched(meta, p, tick), 1);
	return meta_server(meta);
new:
	return v6 ? new_flow6(p, m, (void *)entry, datagram) :
		    new_flow4(p, m, (void *)entry, datagram);
}

/* The server of a whole packet or first fragment, by its flow. */
inlined u32 server_of_flow(context *ctx, struct packet *p, const struct match *m,
			   const struct service *service, const struct settings *settings,
			   const int v6)
{
	u32 number, flow, datagram = 0, tick = now(settings);

	p->hash = hash_key(p->source, p->destination, p->ports, p->kind, settings->table_seed, v6);
	if (unlikely(p->fragment))
		datagram = v6 ? server_of_datagram6(p, m->service) :
				server_of_datagram4(p, m->service);
	if (service->mode == NAT)
		number = server_of_nat(p, m, service, tick, datagram, v6);
	else
		number = server_of_plain(p, m, service, tick, datagram, v6);
	if (unlikely((int)number <= 0)) {
		if (number)
			return FINAL(v6 ? refuse_empty6(ctx, p, m->service) :
					  refuse_empty4(ctx, p, m->service));
		return FINAL(DROP);
	}
	if (likely(!p->fragment))
		return number;
	flow = number;
	if (datagram && datagram != flow) {
		count(FRAGMENT_SPLIT);
		if (service->mode != NAT)
			number = datagram;
	}
	if (v6)
		remember_datagram6(p, number, flow);
	else
		remember_datagram4(p, number, flow);
	return number;
}

inlined int balance(context *ctx, struct packet *p, struct vip *vip, struct match *m,
		    const int v6)
{
	struct settings *settings = get_settings();
	struct service *service;
	struct server *server;
	u32 number;

	if (!settings)
		return PASS;
	if (!(v6 ? parse_ipv6(ctx, p) : parse_ipv4(ctx, p)))
		return pass_up(UNPARSED);
	if (!find_vip(p, settings, vip, v6))
		return no_vip(ctx, p, v6);
	if (!parse_transport(ctx, p, v6)) {
		count(MALFORMED);
		return DROP;
	}
	if (unlikely(p->fragment))
		count(FRAGMENTS);
	if (unlikely(p->icmp > ICMP_REQUEST)) {
		number = other_icmp(ctx, p, vip, m, v6);
		service = get_service(m->service);
	} else if (unlikely(p->fragment == LATER_FRAGMENT)) {
		number = other_fragment(ctx, p, vip, m, v6);
		service = get_service(m->service);
	} else {
		if (!match_rule(p, vip, p->kind, swap16(p->ports >> 16), m, v6))
			return v6 ? refuse_port6(ctx, p, vip) : refuse_port4(ctx, p, vip);
		count_vip(m->vip, p->length);
		p->dscp = m->dscp;
		service = get_service(m->service);
		if (!service)
			return internal();
		number = server_of_flow(ctx, p, m, service, settings, v6);
	}
	if (IS_FINAL(number))
		return VERDICT(number);
	server = get_server(number);
	if (!server || !service)
		return internal();
	return forward(ctx, p, service, server, number, v6);
}

inlined int entry(context *ctx)
{
	struct scratch *s = at(scratch, bpf_get_smp_processor_id());
	struct eth *eth;

	if (!s || was_seen(ctx))
		return PASS;
	pull(ctx);
	eth = header(ctx, 0, sizeof(*eth));
	if (eth && eth->type == ETH_IPV4)
		return balance(ctx, &s->packet, &s->vip, &s->match, 0);
	if (eth && eth->type == ETH_IPV6)
		return balance(ctx, &s->packet, &s->vip, &s->match, 1);
	return pass_up(NOT_IP);
}

#ifdef HOOK_TC
SEC("classifier") int carrick_lb(context *ctx)
#else
SEC("xdp") int carrick_lb(context *ctx)
#endif
{
	return entry(ctx);
}

char licence[] SEC("license") = "Dual BSD/GPL";
