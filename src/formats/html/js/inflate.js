"use strict";
// zlib streams (RFC 1950, 1951) for browsers without DecompressionStream.
function inflate(input) {
  let at = 2;
  let bits = 0;
  let held = 0;
  let out = new Uint8Array(Math.max(1 << 16, input.length * 6));
  let size = 0;
  const need = (count) => {
    while (held < count) {
      if (at >= input.length) throw new Error("the data of this page are cut short");
      bits |= input[at++] << held;
      held += 8;
    }
  };
  const take = (count) => {
    if (count === 0) return 0;
    need(count);
    const value = bits & ((1 << count) - 1);
    bits >>>= count;
    held -= count;
    return value;
  };
  const room = (more) => {
    if (size + more <= out.length) return;
    const bigger = new Uint8Array(Math.max(out.length * 2, size + more));
    bigger.set(out);
    out = bigger;
  };
  // Canonical codes: how many of each length, and the symbols in order of their codes.
  const codes = (lengths) => {
    const counts = new Uint16Array(16);
    for (const length of lengths) counts[length]++;
    counts[0] = 0;
    const starts = new Uint16Array(17);
    for (let length = 1; length < 16; length++) starts[length + 1] = starts[length] + counts[length];
    const symbols = new Uint16Array(lengths.length);
    lengths.forEach((length, symbol) => {
      if (length) symbols[starts[length]++] = symbol;
    });
    return { counts, symbols };
  };
  const symbol = ({ counts, symbols }) => {
    let code = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length < 16; length++) {
      code |= take(1);
      const count = counts[length];
      if (code - count < first) return symbols[index + (code - first)];
      index += count;
      first = (first + count) << 1;
      code <<= 1;
    }
    throw new Error("the data of this page are damaged");
  };
  const lengthBase = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
  const lengthMore = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
  const backBase = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
  const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  const fixed = () => {
    const lengths = [];
    for (let at = 0; at < 288; at++) lengths.push(at < 144 ? 8 : at < 256 ? 9 : at < 280 ? 7 : 8);
    return [codes(lengths), codes(new Array(30).fill(5))];
  };
  const dynamic = () => {
    const [literals, backs, count] = [take(5) + 257, take(5) + 1, take(4) + 4];
    const short = new Array(19).fill(0);
    for (let at = 0; at < count; at++) short[order[at]] = take(3);
    const code = codes(short);
    const lengths = [];
    while (lengths.length < literals + backs) {
      const next = symbol(code);
      if (next < 16) lengths.push(next);
      else {
        const value = next === 16 ? lengths[lengths.length - 1] : 0;
        const times = next === 16 ? 3 + take(2) : next === 17 ? 3 + take(3) : 11 + take(7);
        for (let at = 0; at < times; at++) lengths.push(value);
      }
    }
    return [codes(lengths.slice(0, literals)), codes(lengths.slice(literals))];
  };
  for (let last = 0; !last; ) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      bits = 0;
      held = 0;
      const length = input[at] | (input[at + 1] << 8);
      at += 4;
      room(length);
      out.set(input.subarray(at, at + length), size);
      size += length;
      at += length;
      continue;
    }
    const [literals, backs] = kind === 1 ? fixed() : dynamic();
    for (;;) {
      const next = symbol(literals);
      if (next === 256) break;
      if (next < 256) {
        room(1);
        out[size++] = next;
        continue;
      }
      const length = lengthBase[next - 257] + take(lengthMore[next - 257]);
      const far = symbol(backs);
      const back = backBase[far] + take(far < 4 ? 0 : (far - 2) >> 1);
      room(length);
      for (let at = 0; at < length; at++, size++) out[size] = out[size - back];
    }
  }
  return out.subarray(0, size);
}
