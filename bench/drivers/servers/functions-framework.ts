// Serves the functions with @google-cloud/functions-framework. Ends when its parent does.
//
// The server is the one that its command line starts; only there the port cannot be chosen by the
// system, so it is taken from the testing entry.
import type { AddressInfo } from 'node:net'
import { http, type HttpFunction } from '@google-cloud/functions-framework'
import { getTestServer } from '@google-cloud/functions-framework/testing'

import { loadFunctions, serveUntilDisconnect } from './server.js'

const functions = await loadFunctions()
const serve: HttpFunction = (request, response) => {
  const call = functions[request.path.slice(1)]
  // `body` is a Buffer: the type of the content is not one that the framework parses.
  if (call === undefined) response.status(404).end()
  else response.type('application/octet-stream').send(Buffer.from(call(request.body as Buffer)))
}
http('serve', serve)
const server = getTestServer('serve')
server.listen(0, '127.0.0.1', () =>
  serveUntilDisconnect((server.address() as AddressInfo).port, () => server.close()),
)
