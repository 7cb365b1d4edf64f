// Answers requests and does nothing else; with a path it first makes the body durable there. Ends when its
// parent does.
import { fdatasyncSync, openSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { serveUntilDisconnect } from './server.js'

const [, , path] = process.argv
const file = path === undefined ? undefined : openSync(path, 'w')
const answer = JSON.stringify({ answer: 'x'.repeat(500) })

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    if (file !== undefined) {
      writeSync(file, Buffer.concat(chunks))
      fdatasyncSync(file)
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
  })
})
server.listen(0, '127.0.0.1', () => {
  serveUntilDisconnect((server.address() as AddressInfo).port, () => void server.close())
})
