// The key pair that signs lease tokens: made once, kept in the data directory, readable by its owner; or
// in etcd, readable by whoever may read etcd.
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { Type } from 'typebox'
import { RfaasError } from '../../lib/errors.js'
import { etcdNames, sharedRecord } from '../stores/etcd.js'
import type { Etcd } from '../stores/etcd-client.js'

export interface SigningKeys {
  privateKey: KeyObject
  /** SPKI, PEM: what nodes get. */
  publicKeyPem: string
}

/** Only for who owns the data directory's store: there is no lock of its own. */
export function loadSigningKeys(dataDir: string): SigningKeys {
  const path = join(dataDir, 'signing-key.pem')
  return pairOf(read(path) ?? create(path))
}

/** Of all managers that share the store. */
export async function sharedSigningKeys(etcd: Etcd, prefix: string): Promise<SigningKeys> {
  const propose = (): string => pemOf(generateKeyPairSync('ed25519').privateKey)
  const pem = await sharedRecord(etcd, prefix, etcdNames.signingKey, Type.String(), propose)
  return pairOf(createPrivateKey(pem))
}

function pairOf(privateKey: KeyObject): SigningKeys {
  const publicKey = createPublicKey(privateKey)
  return { privateKey, publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
}

function pemOf(privateKey: KeyObject): string {
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function read(path: string): KeyObject | undefined {
  let pem: string
  try {
    pem = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw unusable(path, 'cannot be read:', error)
  }
  if ((statSync(path).mode & 0o077) !== 0) {
    throw unusable(path, 'can be read by others, who could forge leases: chmod 600 it, or')
  }
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (error) {
    throw unusable(path, 'is not a private key in PEM format:', error)
  }
  if (key.asymmetricKeyType !== 'ed25519') throw unusable(path, 'is not an Ed25519 key:')
  return key
}

function create(path: string): KeyObject {
  const { privateKey } = generateKeyPairSync('ed25519')
  // Whole or not at all: a crash must not leave half a key behind.
  const partial = `${path}.partial`
  const file = openSync(partial, 'w', 0o600)
  try {
    writeSync(file, pemOf(privateKey))
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(partial, path)
  return privateKey
}

function unusable(path: string, what: string, cause?: unknown): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INTERNAL',
    `the signing key ${path} ${what} restore it from a backup; removing it makes a new one and ends all leases' tokens`,
    cause === undefined ? {} : { cause },
  )
}
