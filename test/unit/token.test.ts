import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { LeaseClaims } from '../../lib/control/schemas.js'
import { signToken, verifyToken } from '../../lib/control/token.js'

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const nowMs = Date.UTC(2030, 0, 1)
const claims: LeaseClaims = {
  lease: 'l-1',
  tenant: 'default',
  node: 'node-a',
  cores: [2, 3],
  memoryBytes: 2 ** 30,
  epoch: 7,
  expiresAtMs: nowMs + 1000,
}
const here = { node: 'node-a', nowMs }

function refusal(message: RegExp) {
  return expect.objectContaining({
    code: 'ERR_RFAAS_UNAUTHORIZED',
    status: 401,
    message: expect.stringMatching(message),
  })
}

function signRaw(payload: string): string {
  const part = Buffer.from(payload).toString('base64url')
  return `${part}.${sign(null, Buffer.from(part), privateKey).toString('base64url')}`
}

describe('a lease token', () => {
  it('gives back the claims that were signed, with a key object or PEM', () => {
    const token = signToken(claims, privateKey)
    expect(verifyToken(token, publicKey, here)).toEqual(claims)
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
    expect(verifyToken(token, pem, here)).toEqual(claims)
  })

  it('is refused when any single character of it is changed', () => {
    const token = signToken(claims, privateKey)
    for (let at = 0; at < token.length; at += 1) {
      // 'A' and 'Q' differ in the bits that the last character of a signature really uses.
      const forged = token.slice(0, at) + (token[at] === 'Q' ? 'A' : 'Q') + token.slice(at + 1)
      if (forged === token) continue
      expect(() => verifyToken(forged, publicKey, here), `at ${at}`).toThrow(
        refusal(/malformed|not signed/),
      )
    }
  })

  it('is refused when somebody else signed it', () => {
    const other = generateKeyPairSync('ed25519')
    expect(() => verifyToken(signToken(claims, other.privateKey), publicKey, here)).toThrow(
      refusal(/not signed/),
    )
  })

  it('is refused on another node', () => {
    const token = signToken(claims, privateKey)
    expect(() => verifyToken(token, publicKey, { node: 'node-b', nowMs })).toThrow(
      refusal(/for node node-a, this is node-b/),
    )
  })

  it('is good until the last millisecond before its expiry and not after', () => {
    const token = signToken(claims, privateKey)
    expect(verifyToken(token, publicKey, { node: 'node-a', nowMs: nowMs + 999 })).toEqual(claims)
    expect(() => verifyToken(token, publicKey, { node: 'node-a', nowMs: nowMs + 1000 })).toThrow(
      refusal(/expired at 2030-01-01T00:00:01/),
    )
  })

  it.each([
    ['empty text', ''],
    ['no signature', 'abc'],
    ['three parts', `a.b.${'c'.repeat(86)}`],
    ['padding', `YQ==.${'c'.repeat(86)}`],
    ['a megabyte', 'a'.repeat(2 ** 20)],
  ])('is refused as malformed: %s', (_what, token) => {
    expect(() => verifyToken(token, publicKey, here)).toThrow(refusal(/malformed/))
  })

  it.each([
    ['no JSON', '{'],
    ['null', 'null'],
    ['no cores', JSON.stringify({ ...claims, cores: [] })],
    ['an unknown claim', JSON.stringify({ ...claims, root: true })],
  ])('is refused although signed when it holds %s', (_what, payload) => {
    expect(() => verifyToken(signRaw(payload), publicKey, here)).toThrow(refusal(/signed but/))
  })
})
