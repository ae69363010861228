# 1. Create an account
ACCOUNT=$(curl -s -X POST http://localhost:8081/account \
  -H "Content-Type: application/json" \
  -d '{
    "beholder_name": "John Doe",
    "country_code": "US"
  }')
echo "$ACCOUNT"
ACCOUNT_ID=$(echo "$ACCOUNT" | sed 's/.*"id":"\([^"]*\)".*/\1/')

# 2. Wait a moment for Kafka event to be consumed
sleep 1

# 3. Create a card for the account
curl -s -X POST http://localhost:8082/card \
  -H "Content-Type: application/json" \
  -d '{
    "country": "US",
    "account_id": "'"$ACCOUNT_ID"'"
  }'
echo

# 4. Get all cards for the account
curl -s "http://localhost:8082/cards/by-account?account_id=$ACCOUNT_ID"
echo

# 5. Delete the account
curl -s -X DELETE "http://localhost:8081/account?id=$ACCOUNT_ID"
echo

# 6. Try to create another card (should fail)
sleep 1
curl -s -X POST http://localhost:8082/card \
  -H "Content-Type: application/json" \
  -d '{
    "country": "US",
    "account_id": "'"$ACCOUNT_ID"'"
  }'
echo
