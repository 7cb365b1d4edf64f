// Lease tokens: base64url(JSON of LeaseClaims) "." base64url(Ed25519 signature over the first part's
// text). The resource manager signs, executor managers verify with its public key and nothing else,
// so that running leases do not depend on the resource manager being reachable.
import { sign, verify, type KeyObject } from 'node:crypto'
import { RfaasError } from '../errors.js'
import { inspect } from './check.js'
import { LeaseClaims } from './schemas.js'

// 4096 core ids of five digits are 33 KB in base64; nothing longer is one of ours.
const maxTokenLength = 64 * 1024
// 64 signature bytes are 86 characters, of which the last has four bits that are none of theirs: with
// others than zeros there it would be a second text of the same token.
const shape = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{85}[AQgw])$/

export interface TokenExpectation {
  /** The node that verifies: a lease of another node is refused. */
  node: string
  nowMs: number
}

export function signToken(claims: LeaseClaims, privateKey: KeyObject): string {
  const payload = Buffer.from(JSON.stringify(claims)).toString('base64url')
  return `${payload}.${sign(null, Buffer.from(payload), privateKey).toString('base64url')}`
}

/** The claims of a token that is genuine, for this node and not expired; throws what is wrong. */
export function verifyToken(
  token: string,
  publicKey: KeyObject | string,
  expected: TokenExpectation,
): LeaseClaims {
  const claims = openToken(token, publicKey)
  checkClaims(claims, expected)
  return claims
}

/** The first half, which is always the same: the claims of a token that is genuine. */
export function openToken(token: string, publicKey: KeyObject | string): LeaseClaims {
  const match = token.length <= maxTokenLength ? shape.exec(token) : null
  const [, payload, signature] = match ?? []
  if (payload === undefined || signature === undefined) {
    throw unauthorized('the lease token is malformed: use the token of the lease grant unchanged')
  }
  // The signature comes first: what is not signed is not parsed.
  if (!verify(null, Buffer.from(payload), publicKey, Buffer.from(signature, 'base64url'))) {
    throw unauthorized(
      'the lease token is not signed by the resource manager that this node is registered with',
    )
  }
  return parseClaims(payload)
}

/** The second half, which time changes. */
export function checkClaims(claims: LeaseClaims, expected: TokenExpectation): void {
  if (claims.node !== expected.node) {
    throw unauthorized(`lease ${claims.lease} is for node ${claims.node}, this is ${expected.node}`)
  }
  if (claims.expiresAtMs <= expected.nowMs) {
    const expiry = new Date(claims.expiresAtMs).toISOString()
    throw unauthorized(`the token of lease ${claims.lease} expired at ${expiry}: renew the lease`)
  }
}

function parseClaims(payload: string): LeaseClaims {
  let claims: unknown
  try {
    claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
  } catch {
    throw unauthorized(
      'the lease token is signed but holds no JSON: the managers differ in version',
    )
  }
  const finding = inspect(LeaseClaims, claims, 'the claims')
  if (finding === undefined) return claims as LeaseClaims
  throw unauthorized(`the lease token is signed but ${finding.message}`)
}

function unauthorized(message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_UNAUTHORIZED', message, { status: 401 })
}
