// API keys: `rfk_<id>_<secret>`. The id is public and names the key in logs; the secret is 32 random
// bytes in base64url. The keys file holds only the SHA-256 of each secret: nobody can guess 256
// random bits, so a slow hash would protect nothing that a fast one does not.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { Type, type Static } from 'typebox'
import { RfaasError, invalidArgument } from '../errors.js'
import { checkArgument } from './check.js'
import type { Logger } from './log.js'
import type { Principal } from './principal.js'
import { Reloaded } from './reloaded.js'
import { readSecretFile } from './secret-file.js'

const closed = { additionalProperties: false }
const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
const limit = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

export const KeyRecord = Type.Object(
  {
    id: Type.String({ pattern: '^[a-z0-9]{4,32}$' }),
    /** SHA-256 of the secret's 32 bytes, in hex. */
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    role: Type.Union([Type.Literal('tenant'), Type.Literal('node'), Type.Literal('operator')]),
    /** Whose leases it requests; not for role `node`. */
    tenant: Type.Optional(identifier),
    /** The only node that it speaks for; role `node`. */
    node: Type.Optional(identifier),
    createdAt: Type.String({ format: 'date-time' }),
    expiresAt: Type.Optional(Type.String({ format: 'date-time' })),
    /** What its tenant may hold at once. */
    quota: Type.Optional(
      Type.Object(
        {
          maxCores: Type.Optional(limit),
          maxMemoryBytes: Type.Optional(limit),
          maxLeases: Type.Optional(limit),
        },
        closed,
      ),
    ),
  },
  closed,
)
export type KeyRecord = Static<typeof KeyRecord>

export const KeysFile = Type.Object({ keys: Type.Array(KeyRecord, { maxItems: 100_000 }) }, closed)

// 32 bytes leave two bits of the last character over: they are zero, so that a key has one text.
const shape = /^rfk_([a-z0-9]{4,32})_([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])$/
// 40 bits: enough to be unique in a file, short enough to be read out.
const idBytes = 5
const secretBytes = 32

/** A new key, and the record of it that is kept. */
export function createKey(record: Omit<KeyRecord, 'id' | 'sha256' | 'createdAt'>): {
  key: string
  record: KeyRecord
} {
  const id = randomBytes(idBytes).toString('hex')
  const secret = randomBytes(secretBytes)
  const sha256 = createHash('sha256').update(secret).digest('hex')
  return {
    key: `rfk_${id}_${secret.toString('base64url')}`,
    record: { id, sha256, createdAt: new Date().toISOString(), ...record },
  }
}

/** The public part of what may be a key: all of it that a log may show. */
export function keyIdOf(key: string): string | undefined {
  return shape.exec(key)?.[1]
}

/** How whoever has a key gives it. */
export interface KeyOptions {
  /** API key: `rfk_…`. */
  key?: string | undefined
  /** File that holds it and nothing else, mode 0600. */
  keyFile?: string | undefined
}

/** Throws ERR_RFAAS_INVALID_ARGUMENT, without repeating what may be half a secret. */
export function readKey({ key, keyFile }: KeyOptions): string | undefined {
  const text =
    key ?? (keyFile === undefined ? undefined : readSecretFile(keyFile, 'keyFile', 'the key file'))
  if (text === undefined || shape.test(text.trim())) return text?.trim()
  const where = key === undefined ? `in ${String(keyFile)}` : 'given as key'
  throw new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `what is ${where} is not an API key: it is one line that begins with rfk_, as "rfaas keys add" printed it`,
    { field: key === undefined ? 'keyFile' : 'key', allowed: 'an API key', status: 400 },
  )
}

/** RFAAS_KEY and RFAAS_KEY_FILE, which are for clients; the first counts. */
export function keyOfEnvironment(): KeyOptions {
  const value = (name: string): string | undefined => process.env[name] || undefined
  return { key: value('RFAAS_KEY'), keyFile: value('RFAAS_KEY_FILE') }
}

/** The keys in a file, as they are now: a key that is removed stops working at once. */
export class KeyRing {
  readonly #records: Reloaded<ReadonlyMap<string, KeyRecord>>

  /** Throws when the file cannot be used. When it becomes unusable later, the keys before it go on. */
  constructor(path: string, logger: Logger) {
    this.#records = new Reloaded({
      paths: [path],
      read: () => new Map(readKeysFile(path).map((record) => [record.id, record])),
      failed: (error) =>
        logger.error({ err: error, keysFile: path }, 'keys file not usable: the keys before go on'),
    })
  }

  /** Whose key it is; throws ERR_RFAAS_UNAUTHORIZED. */
  principalOf(key: string, nowMs = Date.now()): Principal {
    const [, id, secret] = shape.exec(key) ?? []
    if (id === undefined || secret === undefined) {
      throw unauthorized('this is not an API key: it begins with rfk_ and is used unchanged')
    }
    const record = this.#records.value.get(id)
    const found = createHash('sha256').update(Buffer.from(secret, 'base64url')).digest()
    if (record === undefined || !timingSafeEqual(found, Buffer.from(record.sha256, 'hex'))) {
      throw unauthorized(`there is no such key as ${id}, or its secret is another one`)
    }
    if (record.expiresAt !== undefined && Date.parse(record.expiresAt) <= nowMs) {
      throw unauthorized(`key ${id} expired at ${record.expiresAt}: ask the operator for a new one`)
    }
    const { role, tenant = 'none', node, quota } = record
    return {
      tenant,
      role,
      keyId: id,
      ...(node === undefined ? {} : { node }),
      ...(quota === undefined ? {} : { quota: quota as NonNullable<Principal['quota']> }),
    }
  }

  /** The key that the principal came with is there, unexpired, and of the same. */
  stillHas({ keyId, role, tenant, node }: Principal, nowMs = Date.now()): boolean {
    const record = this.#records.value.get(keyId)
    if (record === undefined || record.role !== role || record.node !== node) return false
    const expired = record.expiresAt !== undefined && Date.parse(record.expiresAt) <= nowMs
    return !expired && (record.tenant ?? 'none') === tenant
  }
}

/** Checked; throws ERR_RFAAS_INVALID_ARGUMENT that names the place of the fault. */
export function readKeysFile(path: string): KeyRecord[] {
  const text = readSecretFile(path, 'keysFile', 'the keys file')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw unusable(path, `is not JSON: ${(cause as Error).message}`)
  }
  let keys: KeyRecord[]
  try {
    ;({ keys } = checkArgument(KeysFile, value, 'the file'))
    for (const [index, key] of keys.entries()) checkRecord(key, `keys[${index}]`)
  } catch (cause) {
    throw unusable(path, `is not valid: ${(cause as Error).message}`)
  }
  const ids = new Set<string>()
  for (const { id } of keys) {
    if (ids.has(id)) throw unusable(path, `has two keys with id ${id}`)
    ids.add(id)
  }
  return keys
}

/** What the schema cannot say: which fields go with which role. */
export function checkRecord({ role, tenant, node, quota }: KeyRecord, name = 'key'): void {
  if ((role === 'node') !== (node !== undefined)) {
    throw invalidArgument(`${name}.node`, node, 'the name of a node, for role node and no other')
  }
  if ((role === 'node') === (tenant !== undefined)) {
    throw invalidArgument(`${name}.tenant`, tenant, 'a tenant, for every role but node')
  }
  if (role === 'node' && quota !== undefined) {
    throw invalidArgument(`${name}.quota`, quota, 'absent for role node')
  }
}

function unusable(path: string, why: string): RfaasError {
  return new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `the keys file ${path} ${why}`, {
    field: 'keysFile',
    value: path,
    allowed: 'a file that "rfaas keys" made',
  })
}

function unauthorized(message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_UNAUTHORIZED', message, { status: 401 })
}
