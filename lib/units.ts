// Sizes and times as people write them: '512MiB', '10m'. Numbers pass through, so that every option
// takes both. Errors name the option.
import { invalidArgument } from './errors.js'

const byteUnits: Record<string, number> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}
const durationUnits: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}
const bytesAllowed = 'a whole number of bytes or a size such as 64KiB, 512MiB or 2GB'
const durationAllowed =
  'a whole number of milliseconds or a duration such as 500ms, 30s, 10m or 1h30m'

/** Bytes: `'512MiB'`, `'2GB'` (decimal), `'1048576'` or a number. */
export function parseBytes(value: string | number, field = 'bytes'): number {
  if (typeof value === 'number') return wholeNumber(value, value, field, bytesAllowed)
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?\s*$/i.exec(value)
  const unit = byteUnits[(match?.[2] ?? 'b').toLowerCase()]
  if (match === null || unit === undefined) throw invalidArgument(field, value, bytesAllowed)
  return wholeNumber(Number(match[1]) * unit, value, field, bytesAllowed)
}

/** Milliseconds: `'10m'`, `'1h30m'`, `'250ms'` or a number. Text needs a unit, only `'0'` does not. */
export function parseDuration(value: string | number, field = 'duration'): number {
  if (typeof value === 'number') return wholeNumber(value, value, field, durationAllowed)
  const text = value.trim()
  if (text === '0') return 0
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) {
    throw invalidArgument(field, value, durationAllowed)
  }
  let total = 0
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (durationUnits[unit ?? ''] ?? Number.NaN)
  }
  return wholeNumber(total, value, field, durationAllowed)
}

/** `536870912` is `'512 MiB'`; at most one decimal. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let scaled = bytes
  let unit = 0
  // 1023.95 would be shown as 1024.0, so the next unit starts there.
  while (scaled >= 1023.95 && unit < units.length - 1) {
    scaled /= 1024
    unit += 1
  }
  return `${Number(scaled.toFixed(1))} ${units[unit] ?? 'TiB'}`
}

/** `5400000` is `'1h30m'`, `1500` is `'1.5s'`: what `parseDuration` reads. */
export function formatDuration(milliseconds: number): string {
  const rounded = Math.round(milliseconds)
  if (rounded < 1000) return `${rounded}ms`
  if (rounded < 60_000) return `${Number((rounded / 1000).toFixed(3))}s`
  let rest = Math.round(rounded / 1000)
  let text = ''
  for (const [unit, seconds] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    const count = Math.floor(rest / seconds)
    if (count > 0) text += `${count}${unit}`
    rest -= count * seconds
  }
  return text
}

function wholeNumber(amount: number, given: unknown, field: string, allowed: string): number {
  // Decimal fractions of a unit need not come out whole in binary: 1.1s is 1100.0000000000002 ms.
  const whole = typeof given === 'number' ? amount : Math.round(amount)
  if (!Number.isSafeInteger(whole) || whole < 0) throw invalidArgument(field, given, allowed)
  return whole
}
