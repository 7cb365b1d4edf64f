import { describe, expect, it } from 'vitest'
import { check, checkArgument, inspect } from '../../lib/control/check.js'
import {
  EndEvent,
  LeaseClosed,
  LeaseInfo,
  LeaseRequest,
  NodeRegistration,
} from '../../lib/control/schemas.js'

const request = { cores: 1, memoryBytes: 2 ** 20, durationMs: 1000 }
const registration = {
  name: 'a',
  url: 'http://127.0.0.1:1',
  cores: [0],
  memoryBytes: 1,
  providers: [{ name: 'shm', available: true, reason: '' }],
  hostId: 'h',
  sequence: 1,
  leases: [],
}

describe('a finding', () => {
  it.each([
    [LeaseRequest, { ...request, cores: 0 }, 'cores is 0, must be an integer from 1 to 4096'],
    [LeaseRequest, { ...request, cores: '1' }, 'cores is "1", must be an integer from 1 to 4096'],
    [
      LeaseRequest,
      { ...request, memoryBytes: 1 },
      'memoryBytes is 1, must be an integer >= 1048576',
    ],
    [
      LeaseRequest,
      { cores: 1, durationMs: 1000 },
      'memoryBytes is missing, must be an integer >= 1048576',
    ],
    [
      LeaseRequest,
      { ...request, gpus: 1 },
      'gpus is not a known field, allowed is one of cores, memoryBytes, durationMs, node, nodes, hostId, executor, waitMs, requestId',
    ],
    [LeaseRequest, null, 'body is null, must be an object'],
    [LeaseRequest, undefined, 'body is missing, must be an object'],
    [LeaseRequest, [], 'body is an array, must be an object'],
    [
      LeaseRequest,
      { ...request, node: '../x' },
      /^node is "\.\.\/x", must be a string that matches/,
    ],
    [
      NodeRegistration,
      { ...registration, cores: [] },
      /^cores is an array, must be an array of 1 to 4096 items/,
    ],
    [
      NodeRegistration,
      { ...registration, cores: [3, 3] },
      /^cores is an array, .*without duplicates$/,
    ],
    [
      NodeRegistration,
      { ...registration, cores: [0, -1] },
      'cores[1] is -1, must be an integer from 0 to 65535',
    ],
    [NodeRegistration, { ...registration, url: 'here' }, 'url is "here", must be an absolute URI'],
    [
      NodeRegistration,
      { ...registration, providers: [{ name: 'shm', available: 1, reason: '' }] },
      'providers[0].available is 1, must be true or false',
    ],
    [
      NodeRegistration,
      { ...registration, hostId: '' },
      'hostId is "", must be a string of 1 to 128 characters',
    ],
    [
      EndEvent,
      { lease: 'a', reason: 'bored' },
      'reason is "bored", must be one of "released", "expired", "revoked", "lost"',
    ],
    [LeaseClosed, { heldMs: NaN, cpuMs: 0 }, 'heldMs is NaN, must be an integer >= 0'],
  ])('says in one sentence what is wrong (%#)', (schema, value, message) => {
    const found = inspect(schema, value)?.message
    if (message instanceof RegExp) expect(found).toMatch(message)
    else expect(found).toBe(message)
  })

  it('is not misled by a key that has a meaning in JavaScript', () => {
    const hostile: unknown = JSON.parse('{"__proto__": {"cores": 1}, "constructor": 1}')
    expect(inspect(LeaseRequest, hostile)?.message).toMatch(/^cores is missing/)
    expect(
      inspect(LeaseClosed, JSON.parse('{"heldMs":1,"cpuMs":1,"__proto__":1}'))?.message,
    ).toMatch(/^__proto__ is not a known field/)
  })

  it('does not exist for a value that fits', () => {
    expect(inspect(LeaseRequest, request)).toBeUndefined()
    expect(inspect(NodeRegistration, registration)).toBeUndefined()
  })
})

describe('check and checkArgument', () => {
  it('return the value itself when it fits', () => {
    expect(check(LeaseRequest, request)).toBe(request)
    expect(checkArgument(LeaseRequest, request)).toBe(request)
  })

  it('blame the other side and the caller respectively', () => {
    expect(() => check(LeaseInfo, { id: 'x' }, 'the lease')).toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_PROTOCOL',
        message: expect.stringMatching(/^the lease is not valid: state is missing/),
      }),
    )
    expect(() => checkArgument(LeaseRequest, { ...request, cores: 0 })).toThrow(
      expect.objectContaining({ code: 'ERR_RFAAS_INVALID_ARGUMENT', field: 'cores', value: 0 }),
    )
  })
})
