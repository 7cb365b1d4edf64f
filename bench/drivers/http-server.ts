// The server of the http driver. Ends when its parent does.
import type { AddressInfo } from 'node:net'
import { fastify } from 'fastify'

const app = fastify({ bodyLimit: Number(process.argv[2]) })
app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_, body, done) =>
  done(null, body),
)
app.post('/echo', (request, reply) => reply.type('application/octet-stream').send(request.body))
await app.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.server.address() as AddressInfo
process.on('disconnect', () => void app.close().then(() => process.exit(0)))
process.send!(port)
