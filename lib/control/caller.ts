// Whoever waits for an answer that may take its time.
import type { FastifyReply, FastifyRequest } from 'fastify'

/** Of connections on which an answer may take its time. */
export const keepAliveMs = 15_000

/** Aborts when the caller hangs up without an answer. While it waits its connection may be silent; a
 * host that vanishes is noticed all the same. */
export function watchCaller(request: FastifyRequest, reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  const { socket } = request.raw
  socket.setTimeout(0)
  socket.setKeepAlive(true, keepAliveMs)
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort()
  })
  return gone.signal
}
