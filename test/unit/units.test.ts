import { describe, expect, it } from 'vitest'
import { formatBytes, formatDuration, parseBytes, parseDuration } from '../../lib/units.js'

describe('parseBytes', () => {
  it.each([
    ['512MiB', 512 * 2 ** 20],
    ['2GB', 2e9],
    ['1.5 KiB', 1536],
    ['64kib', 65536],
    ['10b', 10],
    ['1048576', 1048576],
    ['1.1GB', 1_100_000_000],
    ['0', 0],
    [4096, 4096],
  ])('reads %j as %d', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes)
  })

  it.each(['', 'MiB', '-1', '1e3', '12 apples', '1 2', '0x10', '10M', '9000TiB', -1, 1.5, NaN])(
    'refuses %j and names the option',
    (value) => {
      expect(() => parseBytes(value, 'memory')).toThrow(
        expect.objectContaining({
          code: 'ERR_RFAAS_INVALID_ARGUMENT',
          field: 'memory',
          value,
          message: expect.stringMatching(/^memory is .*, must be .*512MiB/),
        }),
      )
    },
  )
})

describe('parseDuration', () => {
  it.each([
    ['10m', 600_000],
    ['1h30m', 5_400_000],
    ['250ms', 250],
    ['1.1s', 1100],
    ['7d', 604_800_000],
    [' 30s ', 30_000],
    ['0', 0],
    [1500, 1500],
  ])('reads %j as %d ms', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds)
  })

  it.each(['', '10', '-5s', '5 s', 's', '1h 30m', '1e3ms', '1w', Infinity, -1, 0.5])(
    'refuses %j and names the option',
    (value) => {
      expect(() => parseDuration(value, 'lease')).toThrow(/^lease is .*, must be .*10m/)
    },
  )
})

describe('formatting', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [512 * 2 ** 20, '512 MiB'],
    [1.5 * 2 ** 30, '1.5 GiB'],
    [2 ** 20 - 1, '1 MiB'],
    [3 * 2 ** 50, '3072 TiB'],
  ])('shows %d bytes as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })

  it.each([0, 1, 999, 1000, 1500, 59_999, 60_000, 5_400_000, 90_061_000])(
    'shows %d ms so that it reads back as the same time',
    (milliseconds) => {
      expect(parseDuration(formatDuration(milliseconds))).toBe(milliseconds)
    },
  )
})
