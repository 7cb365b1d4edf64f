// Values made from JSON schemas: what fits, and what nearly does.
import fc from 'fast-check'

/** The keywords that the messages use. */
export interface Schema {
  type?: string
  pattern?: string
  format?: string
  const?: unknown
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
}

/** What no schema expects: other types, limits of numbers, names that mean something to JavaScript. */
const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(null, true, '', 0, -1, 1.5, 1e300, 2 ** 53, [], {}, [null], '\u0000'),
  fc.constantFrom('__proto__', 'constructor', '../../etc/passwd', '%s%n', '\ud800', '\u202e'),
  fc.integer(),
  fc.string({ maxLength: 100, unit: 'binary' }),
  fc.jsonValue({ maxDepth: 3 }),
  fc.nat(400).map((length) => 'x'.repeat(length)),
)

/** Mostly what the schema asks for; sometimes, anywhere in it, something else. `known`: values for
 * fields of a name, so that a request gets further than to "no such thing". */
export function fromSchema(
  schema: Schema,
  known: Readonly<Record<string, fc.Arbitrary<unknown>>> = {},
): fc.Arbitrary<unknown> {
  return fc.oneof({ arbitrary: fitting(schema, known), weight: 12 }, { arbitrary: odd, weight: 1 })
}

function fitting(schema: Schema, known: Readonly<Record<string, fc.Arbitrary<unknown>>>) {
  if ('const' in schema) return fc.constant(schema.const)
  if (schema.anyOf !== undefined) {
    return fc.oneof(...schema.anyOf.map((choice) => fromSchema(choice, known)))
  }
  switch (schema.type) {
    case 'boolean':
      return fc.boolean()
    case 'integer':
    case 'number':
      return numbers(schema)
    case 'array': {
      const items = schema.items === undefined ? odd : fromSchema(schema.items, known)
      return fc.array(items, { minLength: schema.minItems ?? 0, maxLength: 5 })
    }
    case 'object':
      return objects(schema, known)
    case 'string':
      return strings(schema)
    default:
      return odd
  }
}

function numbers({ minimum = 0, maximum = Number.MAX_SAFE_INTEGER }: Schema) {
  return fc.oneof(
    fc.constantFrom(minimum, maximum, minimum - 1, maximum + 1),
    fc.integer({ min: minimum, max: Math.min(maximum, minimum + 100) }),
    fc.integer({ min: minimum, max: maximum }),
  )
}

function strings({ pattern, format, minLength = 0, maxLength = 64 }: Schema) {
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern))
  if (format === 'uri') return fc.webUrl()
  if (format === 'date-time') return fc.date({ noInvalidDate: true }).map((at) => at.toISOString())
  return fc.string({ minLength, maxLength: Math.min(maxLength, 64) })
}

function objects(
  { properties = {}, required = [] }: Schema,
  known: Readonly<Record<string, fc.Arbitrary<unknown>>>,
) {
  const fields = Object.fromEntries(
    Object.entries(properties).map(([name, field]) => [
      name,
      known[name] ?? fromSchema(field, known),
    ]),
  )
  const whole = fc.record(fields, { requiredKeys: required })
  const holes = fc.record(fields, { requiredKeys: [] })
  const more = fc
    .tuple(whole, fc.string({ maxLength: 12 }), odd)
    .map(([object, key, value]) => ({ ...object, [key]: value }))
  return fc.oneof({ arbitrary: whole, weight: 8 }, holes, more)
}
