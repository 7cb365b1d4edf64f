// Serves the functions with Fastify. Ends when its parent does.
import type { AddressInfo } from 'node:net'
import { fastify } from 'fastify'

import { loadFunctions, serveUntilDisconnect } from './server.js'

const app = fastify({ bodyLimit: Math.max(1, Number(process.argv[2])) })
app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_, body, done) =>
  done(null, body),
)
for (const [name, call] of Object.entries(await loadFunctions())) {
  app.post(`/${name}`, (request, reply) =>
    reply.type('application/octet-stream').send(call(request.body as Buffer)),
  )
}
await app.listen({ host: '127.0.0.1', port: 0 })
serveUntilDisconnect((app.server.address() as AddressInfo).port, () => void app.close())
