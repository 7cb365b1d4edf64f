import { describe, expect, test } from 'vitest'

import { formatNs, formatRatio, formatTable, formatValue } from '../../bench/table.js'

describe('tables', () => {
  test('columns line up: names to the left, numbers to the right, nothing behind the last', () => {
    const text = formatTable(
      [
        { title: 'name', text: ({ name }) => name, align: 'left' },
        { title: 'time', text: ({ time }) => time },
        { title: 'note', text: ({ note }) => note, align: 'left' },
      ],
      [
        { name: 'floor', time: '170 ns', note: '' },
        { name: 'a longer one', time: '1.81 µs', note: 'warm' },
      ],
    )
    expect(text.split('\n')).toEqual([
      'name             time  note',
      'floor          170 ns',
      'a longer one  1.81 µs  warm',
    ])
  })

  test.each([
    [7, '7 ns'],
    [281, '281 ns'],
    [999.4, '999 ns'],
    [999.6, '1 µs'],
    [1812, '1.81 µs'],
    [58_337, '58.3 µs'],
    [965_000, '965 µs'],
    [3_570_000, '3.57 ms'],
    [2_000_000_000, '2 s'],
  ])('%d nanoseconds are %s', (ns, text) => {
    expect(formatNs(ns)).toBe(text)
  })

  test.each([
    [1, '1×'],
    [1.4231, '1.42×'],
    [13.94, '13.9×'],
    [446.2, '446×'],
    [1423.1, '1423×'],
    [0.00123, '0.0012×'],
  ])('a ratio of %d is %s', (ratio, text) => {
    expect(formatRatio(ratio)).toBe(text)
  })

  test.each([
    [1_423_100, '1/s', '1.42 M/s'],
    [12, '1/s', '12 /s'],
    [33.6e9, 'B/s', '33.6 GB/s'],
    [8 * 2 ** 20, 'B', '8 MiB'],
    [0.0123, '%', '0.01 %'],
  ] as const)('%d in %s is %s', (value, unit, text) => {
    expect(formatValue(value, unit)).toBe(text)
  })
})
