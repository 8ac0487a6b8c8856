// An OpenID provider, whose people are those of the tests: what they may do is in their ID tokens. Arguments: the folder
// with its packages, and its port.
import { pathToFileURL } from "node:url";

const [folder, port] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${folder}/node_modules/oidc-provider/lib/index.js`));

const people = {
  ada: { roles: ["read", "review"], tenants: ["default"] },
  eve: { roles: [], tenants: ["default"] },
};
const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    {
      client_id: "seenit-page",
      client_secret: "a secret: with % and +",
      application_type: "native", // whose redirects may name any port of loopback
      grant_types: ["authorization_code"],
      redirect_uris: ["http://127.0.0.1/sign-in/back"],
      token_endpoint_auth_method: "client_secret_basic",
    },
  ],
  claims: { openid: ["sub", "roles", "tenants"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  cookies: { keys: ["of the tests"] },
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
});
provider.listen(Number(port), "localhost");
