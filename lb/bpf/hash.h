/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
#include "kernel.h"

inlined u64 hash_word(u64 h, u64 word)
{
	h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
	return h ^ (h >> 32);
}

inlined u64 hash_last(u64 h, u64 last)
{
	h = (h ^ last) * 0xBF58476D1CE4E5B9ULL;
	h ^= h >> 32;
	h *= 0x94D049BB133111EBULL;
	return h ^ (h >> 29);
}

/* Spreads the low 32 bits over 0 to n - 1. */
inlined u32 scale(u64 x, u32 n)
{
	return ((x & 0xffffffff) * n) >> 32;
}

/* v6 is a constant in all that follows, so each family gets its own code. */
inlined u64 hash_key(const u32 *source, const u32 *destination, u32 ports, u32 kind, u64 seed,
		     const int v6)
{
	u64 h;

	if (v6) {
		h = hash_word(seed, source[0] | (u64)source[1] << 32);
		h = hash_word(h, source[2] | (u64)source[3] << 32);
		h = hash_word(h, destination[0] | (u64)destination[1] << 32);
		h = hash_word(h, destination[2] | (u64)destination[3] << 32);
	} else {
		h = hash_word(seed, source[0] | (u64)destination[0] << 32);
	}
	return hash_last(h, ports | (u64)kind << 32);
}

/* Hash of a client alone. */
inlined u64 hash_source(const u32 *source, u64 seed, u32 kind, const int v6)
{
	u32 none[4] = {};

	return hash_key(source, none, 0, kind, seed, v6);
}
