import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildNativeCaller, type NativeCaller } from './native-package.js'

let native: NativeCaller
beforeAll(() => {
  native = buildNativeCaller()
})
afterAll(() => native.close())

describe('the native package hello', () => {
  it('greets by name', () => {
    expect(native.call('hello', 'hello', Buffer.from('Ada'), 64).toString()).toBe('Hello, Ada')
    expect(native.call('hello', 'hello', Buffer.alloc(0), 64).toString()).toBe('Hello, ')
  })

  it('brings the input back as it was', () => {
    const input = Buffer.from([0, 255, 10, 13, 0])
    expect(native.call('hello', 'echo', input, 5)).toEqual(input)
  })

  it.each([
    ['hello', 9],
    ['hello', 6],
    ['echo', 2],
  ])('says that the output of %s does not fit into %i bytes', (name, capacity) => {
    expect(() => native.call('hello', name, Buffer.from('Ada'), capacity)).toThrow('-2')
  })
})

describe('the node package hello', () => {
  interface Package {
    hello(name: Uint8Array): Uint8Array
    echo(input: Uint8Array, output: Uint8Array): number
  }
  const load = () => import(new URL('../../examples/hello/hello.mjs', import.meta.url).href) as Promise<Package> // prettier-ignore

  it('greets by name', async () => {
    expect(Buffer.from((await load()).hello(Buffer.from('Ada'))).toString()).toBe('Hello, Ada')
  })

  it('writes the input to the output and says how long it is', async () => {
    const output = new Uint8Array(4)
    expect((await load()).echo(Uint8Array.of(1, 2, 3), output)).toBe(3)
    expect([...output]).toEqual([1, 2, 3, 0])
    const { echo } = await load()
    expect(() => echo(new Uint8Array(5), output)).toThrow('output holds 4 bytes')
  })
})

describe('the package for the original rFaaS', () => {
  it('is called without a function table', () => {
    expect(native.call('rfaas-legacy', 'empty', Buffer.from('abc'), 64).toString()).toBe('abc')
    const sum = native.call('rfaas-legacy', 'sum', Buffer.from([1, 2, 255]), 64)
    expect(sum.readBigUInt64LE()).toBe(258n)
  })
})
