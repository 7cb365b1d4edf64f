// What a function returned or threw, turned into what its caller gets.

export type FunctionResult = number | Uint8Array | Promise<number | Uint8Array>

/** An export of a function package. */
export type PackageFunction = (
  input: Uint8Array,
  output: Uint8Array,
  context: unknown,
) => FunctionResult

export type Outcome =
  | { kind: 'ok'; length: number }
  | { kind: 'outputTooSmall'; message: string }
  | { kind: 'functionError'; message: string }

/** Where an error's text goes has 256 bytes; a longer one would be cut inside a character. */
const maxMessageBytes = 256

/** The functions of a package: their order is their index in calls, the same in every worker. */
export function exportedFunctions(
  module: Readonly<Record<string, unknown>>,
): [name: string, call: PackageFunction][] {
  return Object.entries(module)
    .filter((entry): entry is [string, PackageFunction] => typeof entry[1] === 'function')
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
}

/** `value` is what the function returned or its promise resolved to; the result is in `output`. */
export function resultOf(value: unknown, output: Uint8Array): Outcome {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) {
      return wrongResult(String(value))
    }
    return value <= output.byteLength ? { kind: 'ok', length: value } : tooSmall(value, output)
  }
  if (value instanceof Uint8Array) {
    const length = value.byteLength
    if (length > output.byteLength) return tooSmall(length, output)
    const inPlace = value.buffer === output.buffer && value.byteOffset === output.byteOffset
    if (!inPlace) output.set(value)
    return { kind: 'ok', length }
  }
  return wrongResult(value === null ? 'null' : typeof value)
}

export function errorOf(error: unknown): Outcome {
  return { kind: 'functionError', message: describe(error) }
}

/** `name: message` of an error; functions may throw anything, even what cannot be printed. */
export function describe(error: unknown): string {
  let text: string
  try {
    text = error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`
  } catch {
    text = 'thrown: a value that cannot be shown'
  }
  return truncateUtf8(text, maxMessageBytes)
}

export function truncateUtf8(text: string, maxBytes: number): string {
  const bytes = new Uint8Array(maxBytes)
  const { written } = new TextEncoder().encodeInto(text, bytes)
  return new TextDecoder().decode(bytes.subarray(0, written))
}

function tooSmall(length: number, output: Uint8Array): Outcome {
  const message = `the result has ${length} bytes, the output takes ${output.byteLength}`
  return { kind: 'outputTooSmall', message }
}

function wrongResult(what: string): Outcome {
  const message = `the function returned ${what}, must be the number of bytes in output or a Uint8Array`
  return { kind: 'functionError', message }
}
