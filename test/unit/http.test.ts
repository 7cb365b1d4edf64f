import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Type } from 'typebox'
import { afterEach, describe, expect, it } from 'vitest'
import { events, request, type ServerEvent } from '../../lib/control/http.js'

const servers: Server[] = []

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

const Answer = Type.Object({ value: Type.Integer({ minimum: 1 }) })

function failure(code: string, message: RegExp) {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string })
}

describe('request', () => {
  it('sends JSON and the token and returns the checked answer', async () => {
    const url = await serve((call, reply) => {
      let body = ''
      call.on('data', (chunk: Buffer) => (body += chunk.toString()))
      call.on('end', () => {
        const { method, headers } = call
        const seen = [method, headers['content-type'], headers.authorization, body]
        const right = ['POST', 'application/json', 'Bearer abc', '{"a":1}']
        reply.end(JSON.stringify({ value: seen.join() === right.join() ? 1 : 0 }))
      })
    })
    const answer = await request(url, {
      method: 'POST',
      body: { a: 1 },
      token: 'abc',
      schema: Answer,
    })
    expect(answer).toEqual({ value: 1 })
  })

  it('sends bytes as they are', async () => {
    const url = await serve((call, reply) => {
      const chunks: Buffer[] = []
      call.on('data', (chunk: Buffer) => chunks.push(chunk))
      call.on('end', () => {
        const right =
          call.headers['content-type'] === 'application/octet-stream' &&
          Buffer.concat(chunks).equals(Buffer.from([0, 255, 10]))
        reply.statusCode = right ? 204 : 500
        reply.end()
      })
    })
    await request(url, { method: 'PUT', body: Uint8Array.of(0, 255, 10) })
  })

  it('raises the error of the manager with its code, field and status', async () => {
    const error = { code: 'ERR_RFAAS_NO_CAPACITY', message: 'no', field: 'cores', allowed: '2' }
    const url = await serve((_call, reply) => {
      reply.statusCode = 409
      reply.end(JSON.stringify({ error }))
    })
    await expect(request(url)).rejects.toThrow(expect.objectContaining({ ...error, status: 409 }))
  })

  it('names the URL and what to check when nobody listens', async () => {
    const url = await serve(() => undefined)
    const server = servers.pop()
    server?.close()
    if (server !== undefined) await once(server, 'close')
    await expect(request(`${url}/v1/leases`)).rejects.toThrow(
      failure(
        'ERR_RFAAS_UNAVAILABLE',
        /GET http:.*\/v1\/leases failed: .*ECONNREFUSED.*check that/,
      ),
    )
  })

  it('is unavailable, not stuck, when the answer does not come or does not end', async () => {
    const silent = await serve(() => undefined)
    await expect(request(silent, { timeoutMs: 100 })).rejects.toThrow(
      failure('ERR_RFAAS_UNAVAILABLE', /no answer within 100 ms/),
    )
    const endless = await serve((_call, reply) => void reply.write('{'))
    await expect(request(endless, { timeoutMs: 100, schema: Answer })).rejects.toThrow(
      failure('ERR_RFAAS_UNAVAILABLE', /no answer within 100 ms/),
    )
  })

  it('ends when its caller aborts, before or during', async () => {
    const url = await serve(() => undefined)
    await expect(request(url, { signal: AbortSignal.abort() })).rejects.toThrow(
      failure('ERR_RFAAS_ABORTED', /aborted by its caller/),
    )
    const controller = new AbortController()
    const running = request(url, { signal: controller.signal })
    setTimeout(() => controller.abort(), 20)
    await expect(running).rejects.toThrow(failure('ERR_RFAAS_ABORTED', /aborted/))
  })

  it.each([
    ['no JSON', 200, '<html>', /answered 200 with a body that is not JSON/],
    ['the wrong JSON', 200, '{"value":0}', /not valid: value is 0, must be an integer >= 1/],
    ['an error that is none of ours', 500, '<html>', /answered 500 Internal/],
    ['an invented code', 400, '{"error":{"code":"EVIL","message":"x"}}', /answered 400/],
    ['a redirect', 302, '', /answered 302 Found/],
  ])('does not believe %s', async (_what, status, body, message) => {
    const url = await serve((_call, reply) => {
      reply.writeHead(status, { location: '/elsewhere' })
      reply.end(body)
    })
    await expect(request(url, { schema: Answer })).rejects.toThrow(
      failure('ERR_RFAAS_PROTOCOL', message),
    )
  })

  it.each([502, 503, 504])('takes %d from a proxy for an unavailable manager', async (status) => {
    const url = await serve((_call, reply) => {
      reply.statusCode = status
      reply.end('<html>')
    })
    await expect(request(url)).rejects.toThrow(
      failure('ERR_RFAAS_UNAVAILABLE', /check that the manager runs/),
    )
  })

  it('understands the status of an answer to HEAD, which has no body', async () => {
    const url = await serve((call, reply) => {
      reply.statusCode = call.url === '/there' ? 200 : call.url === '/secret' ? 401 : 404
      reply.end()
    })
    await request(`${url}/there`, { method: 'HEAD' })
    await expect(request(`${url}/gone`, { method: 'HEAD' })).rejects.toThrow(
      failure('ERR_RFAAS_NOT_FOUND', /gone/),
    )
    await expect(request(`${url}/secret`, { method: 'HEAD' })).rejects.toThrow(
      failure('ERR_RFAAS_UNAUTHORIZED', /secret/),
    )
  })
})

describe('events', () => {
  const head = { 'content-type': 'text/event-stream' }

  async function collect(url: string): Promise<ServerEvent[]> {
    const all: ServerEvent[] = []
    for await (const event of events(url)) all.push(event)
    return all
  }

  it('reads every line ending, comments and fields, however the bytes are cut', async () => {
    const text =
      ': hello\r\nevent: a\r\ndata: {"x":\r\ndata: 1}\r\n\r\nid: 7\ndata:"é"\n\nevent: empty\n\n' +
      'event: b\rdata: null\r\rdata: [2]\n\ndata: "cut off"'
    const bytes = Buffer.from(text)
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const url = await serve(async (_call, reply) => {
        reply.writeHead(200, head)
        for (let at = 0; at < bytes.length; at += size) {
          reply.write(bytes.subarray(at, at + size))
          if (size < 7) await delay(0)
        }
        reply.end()
      })
      expect(await collect(url), `cut after ${size}`).toEqual([
        { event: 'a', data: { x: 1 } },
        { event: 'message', data: 'é' },
        { event: 'b', data: null },
        { event: 'message', data: [2] },
      ])
    }
  })

  it.each([
    ['data that is not JSON', head, 'data: {\n\n', /data that is not JSON/],
    ['a line without end', head, `data: ${'x'.repeat(2 ** 20)}`, /event longer than/],
    ['lines without end', head, 'data: xxxxxxxxx\n'.repeat(2 ** 17), /event longer than/],
    ['another content type', { 'content-type': 'text/html' }, 'data: 1\n\n', /text\/html/],
  ])('ends with an error on %s', async (_what, headers, body, message) => {
    const url = await serve((_call, reply) => {
      reply.writeHead(200, headers)
      reply.write(body)
    })
    await expect(collect(url)).rejects.toThrow(failure('ERR_RFAAS_PROTOCOL', message))
  })

  it('reports a server that is gone without a word, and one that was cut off', async () => {
    const silent = await serve((_call, reply) => {
      reply.writeHead(200, head)
      reply.write(': hello\n\n')
    })
    await expect(events(silent, { idleTimeoutMs: 100 }).next()).rejects.toThrow(
      failure('ERR_RFAAS_UNAVAILABLE', /100 ms/),
    )
    const cut = await serve((call, reply) => {
      reply.writeHead(200, head)
      reply.write(': hello\n\n')
      setTimeout(() => call.socket.destroy(), 20)
    })
    await expect(collect(cut)).rejects.toThrow(failure('ERR_RFAAS_UNAVAILABLE', /check that/))
  })

  it('closes the connection when the reader leaves the loop', async () => {
    let closed = false
    const url = await serve((_call, reply) => {
      reply.on('close', () => (closed = true))
      reply.writeHead(200, head)
      reply.write('data: 1\n\ndata: 2\n\n')
    })
    for await (const event of events(url)) {
      expect(event.data).toBe(1)
      break
    }
    await expect.poll(() => closed).toBe(true)
  })
})
