// Validation of control-plane messages. One checker for both directions: servers check requests with
// it, clients check answers. A finding is one sentence that names the field, the value and what is
// allowed; the allowed part is read off the schema, so that it cannot go stale.
import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { RfaasError, invalidArgument } from '../errors.js'

/** What is wrong with a value. */
export interface Finding {
  field: string
  value: unknown
  allowed: string
  message: string
}

/** The JSON-schema keywords that the messages use. */
interface SchemaNode {
  type?: string
  description?: string
  pattern?: string
  format?: string
  const?: unknown
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  uniqueItems?: boolean
  anyOf?: SchemaNode[]
  properties?: Record<string, SchemaNode>
  items?: SchemaNode
}

const validators = new WeakMap<TSchema, Validator>()

/** The first thing wrong with `value`, or undefined when it fits. `root` names the value itself. */
export function inspect(schema: TSchema, value: unknown, root = 'body'): Finding | undefined {
  let validator = validators.get(schema)
  if (validator === undefined) {
    validator = Compile(schema)
    validators.set(schema, validator)
  }
  if (validator.Check(value)) return undefined
  const errors = validator.Errors(value)
  // Failures inside a union's branches come before the union's own, which says more.
  const error =
    errors.find((candidate) => candidate.keyword === 'anyOf') ??
    errors.find((candidate) => candidate.keyword !== 'boolean') ??
    errors[0]
  const path = pointerSegments(error?.instancePath ?? '')
  const params = (error?.params ?? {}) as Record<string, unknown>

  if (error?.keyword === 'required') {
    const missing = firstMissing(params['requiredProperties'], lookUp(value, path))
    const allowed = describe(nodeAt(schema, [...path, missing]))
    const field = fieldName([...path, missing], root)
    return { field, value: undefined, allowed, message: `${field} is missing, must be ${allowed}` }
  }
  if (error?.keyword === 'additionalProperties') {
    const extra = String((params['additionalProperties'] as string[] | undefined)?.[0])
    const field = fieldName([...path, extra], root)
    const known = Object.keys(nodeAt(schema, path)?.properties ?? {})
    const allowed = known.length === 0 ? 'nothing' : `one of ${known.join(', ')}`
    const message = `${field} is not a known field, allowed is ${allowed}`
    return { field, value: lookUp(value, [...path, extra]), allowed, message }
  }
  const field = fieldName(path, root)
  const found = lookUp(value, path)
  const allowed = describe(nodeAt(schema, path))
  const message =
    found === undefined
      ? `${field} is missing, must be ${allowed}`
      : invalidArgument(field, found, allowed).message
  return { field, value: found, allowed, message }
}

/** `value`, if it fits the schema: for what other processes sent. `what` names it in the error. */
export function check<S extends TSchema>(schema: S, value: unknown, what = 'answer'): Static<S> {
  const finding = inspect(schema, value, 'it')
  if (finding === undefined) return value as Static<S>
  const { field, value: found, allowed, message } = finding
  throw new RfaasError('ERR_RFAAS_PROTOCOL', `${what} is not valid: ${message}`, {
    field,
    value: found,
    allowed,
  })
}

/** `value`, if it fits the schema: for what our own caller or a request gave. */
export function checkArgument<S extends TSchema>(
  schema: S,
  value: unknown,
  root = 'body',
): Static<S> {
  const finding = inspect(schema, value, root)
  if (finding === undefined) return value as Static<S>
  throw new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', finding.message, {
    field: finding.field,
    value: finding.value,
    allowed: finding.allowed,
    status: 400,
  })
}

function describe(node: SchemaNode | undefined): string {
  if (node === undefined) return 'absent'
  if (node.description !== undefined) return node.description
  if (node.const !== undefined) return JSON.stringify(node.const)
  if (node.anyOf !== undefined) {
    const choices = node.anyOf.map((choice) => describe(choice))
    return node.anyOf.every((choice) => choice.const !== undefined)
      ? `one of ${choices.join(', ')}`
      : choices.join(' or ')
  }
  switch (node.type) {
    case 'integer':
    case 'number':
      return `${node.type === 'integer' ? 'an integer' : 'a number'}${range(node.minimum, node.maximum)}`
    case 'string':
      return describeString(node)
    case 'boolean':
      return 'true or false'
    case 'array': {
      const length = count(node.minItems, node.maxItems, 'item')
      const element = node.items === undefined ? '' : `, each ${describe(node.items)}`
      return `an array${length}${element}${node.uniqueItems === true ? ', without duplicates' : ''}`
    }
    case 'object':
      return 'an object'
    default:
      return 'a valid value'
  }
}

function describeString(node: SchemaNode): string {
  if (node.format === 'date-time') return 'an ISO 8601 date and time'
  if (node.format === 'uri') return 'an absolute URI'
  if (node.format !== undefined) return `a string in ${node.format} format`
  if (node.pattern !== undefined) return `a string that matches ${node.pattern}`
  return `a string${count(node.minLength, node.maxLength, 'character')}`
}

function range(minimum: number | undefined, maximum: number | undefined): string {
  const unbounded = maximum === undefined || maximum === Number.MAX_SAFE_INTEGER
  if (minimum === undefined) return unbounded ? '' : ` <= ${maximum}`
  return unbounded ? ` >= ${minimum}` : ` from ${minimum} to ${maximum}`
}

function count(minimum: number | undefined, maximum: number | undefined, unit: string): string {
  if (minimum === undefined && maximum === undefined) return ''
  if (maximum === undefined) return ` of at least ${minimum} ${unit}${minimum === 1 ? '' : 's'}`
  if (minimum === undefined) return ` of at most ${maximum} ${unit}s`
  return ` of ${minimum} to ${maximum} ${unit}s`
}

function pointerSegments(pointer: string): string[] {
  if (pointer === '') return []
  return pointer
    .slice(1)
    .split('/')
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function fieldName(path: readonly string[], root: string): string {
  let name = ''
  for (const segment of path) {
    const shown = segment.length > 64 ? `${segment.slice(0, 61)}...` : segment
    if (/^\d+$/.test(segment)) name += `[${segment}]`
    else name += name === '' ? shown : `.${shown}`
  }
  return name === '' ? root : name
}

function lookUp(value: unknown, path: readonly string[]): unknown {
  let current = value
  for (const segment of path) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, segment)) {
      return undefined
    }
    current = (current as Record<string, unknown>)[segment]
  }
  return current
}

function nodeAt(schema: TSchema, path: readonly string[]): SchemaNode | undefined {
  let node: SchemaNode | undefined = schema as SchemaNode
  for (const segment of path) {
    const properties: Record<string, SchemaNode> | undefined = node.properties
    const next: SchemaNode | undefined =
      properties !== undefined && Object.hasOwn(properties, segment)
        ? properties[segment]
        : node.items
    if (next === undefined) return undefined
    node = next
  }
  return node
}

function firstMissing(required: unknown, value: unknown): string {
  const names = Array.isArray(required) ? required.map(String) : []
  const present = typeof value === 'object' && value !== null ? value : {}
  return names.find((name) => !Object.hasOwn(present, name)) ?? names[0] ?? 'field'
}
